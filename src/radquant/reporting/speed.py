"""How fast each precision is, from the timed section (`generation/speed.py`), and where it differs.

A ratio pairs the timings of one round, so that what slows a machine for minutes is in both. If a
precision is as fast as the original, the ratios of k rounds lie all on one side of 1 with
probability 2 / 2^k. That is 6 % for 5 rounds.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from radquant.settings import engines
from radquant.settings.run import ORIGINAL
from radquant.settings.speed import LEAST_REPEATS

# Share of a timing's wall seconds for which threads waited for a core, above which it is left out.
BUSY_SHARE = 0.1
FASTER, SLOWER, SAME, BUSY = "faster", "slower", "no difference measured", "machine busy"
OTHER_ENGINE = "another engine"

CPU = "cpu_seconds_per_report"

Timing = Mapping[str, Any]
# What is told of a timing, and whether less of it is faster.
FIGURES: dict[str, tuple[Callable[[Timing], float | None], bool]] = {
    "seconds_per_report": (lambda t: t["wall_seconds"] / t["reports"], True),
    "prompt_tokens_per_second": (lambda t: _rate(t["prompt_tokens"], t["prompt_seconds"]), False),
    "decode_tokens_per_second": (lambda t: _rate(t["decode_tokens"], t["decode_seconds"]), False),
    CPU: (lambda t: t["cpu_seconds"] / t["reports"], True),
}


def why_no_speed(config: Mapping[str, Any]) -> str | None:
    """Why a run has no timed section, as a clause; None if it has one."""
    compute = config.get("compute", {})
    if not config.get("speed", {}).get("repeats"):
        return "the configuration asks for none (speed: repeats)"
    if not engines.timed(compute["engine"]):
        return f"the engine {compute['engine']} runs in an environment of its own"
    return None


def speed_of(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What the record of the timed section says: the figures of each precision, and its ratios.

    Each figure has its median over the rounds, the least and the most. It has None where the
    machine was busy in so many that fewer than LEAST_REPEATS are left. Ratios are of speed: above 1
    is faster, whatever the figure. Their `state` is one of FASTER, SLOWER, SAME and BUSY.

    names: of the precisions, in the order in which they are told.
    """
    precisions = record["precisions"]
    return {
        "settings": {key: value for key, value in record.items() if key != "precisions"},
        "busy_share": BUSY_SHARE,
        "systems": {name: _system(name, precisions[name], precisions[ORIGINAL]) for name in names},
    }


def _system(name: str, own: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
    timings = own["rounds"]
    quiet = [timing for timing in timings if not is_busy(timing)]
    shown = quiet if len(quiet) >= LEAST_REPEATS else []
    why_not = own["why_not"]
    compared = why_not is None and original["why_not"] is None and name != ORIGINAL
    no_ratio = why_not
    if compared and own["engine"] != original["engine"]:
        compared, no_ratio = False, OTHER_ENGINE
    return {
        "why_not": why_not,
        "why_no_ratio": no_ratio,
        "engine": own.get("engine"),
        "kernel": own.get("kernel"),
        "timings": len(timings),
        "busy_timings": len(timings) - len(quiet),
        "waiting_known": all(timing["waited_seconds"] is not None for timing in timings),
        "too_large_batches": sorted({n for timing in timings for n in timing["too_large_batches"]}),
        **{key: _spread([of(timing) for timing in shown]) for key, (of, _) in FIGURES.items()},
        CPU: _spread([FIGURES[CPU][0](timing) for timing in timings]),  # it suffers less
        "ratios": {
            key: _ratio(timings, original["rounds"], of, less) if compared else None
            for key, (of, less) in FIGURES.items()
        },
    }


def told_apart(found: Mapping[str, Any] | None) -> bool:
    """Whether a ratio says that one is faster."""
    return found is not None and found["state"] in (FASTER, SLOWER)


def is_busy(timing: Timing) -> bool:
    """Whether its threads had no core for a share of the time that is no chance."""
    waited = timing["waited_seconds"]
    return waited is not None and waited > BUSY_SHARE * timing["wall_seconds"]


def _ratio(
    own: Sequence[Timing],
    original: Sequence[Timing],
    of: Callable[[Timing], float | None],
    less_is_faster: bool,
) -> dict[str, Any] | None:
    """The ratio of speeds over the rounds in which neither had to wait; None if there are none."""
    first = {timing["round"]: timing for timing in original if not is_busy(timing)}
    pairs = [
        (of(timing), of(first[timing["round"]]))
        for timing in own
        if timing["round"] in first and not is_busy(timing)
    ]
    ratios = [b / a if less_is_faster else a / b for a, b in pairs if a and b]
    if len(ratios) < len(pairs):  # the engine does not tell prompt and answer apart
        return None
    spread = _spread(ratios)
    if spread is None or len(ratios) < LEAST_REPEATS:
        empty = dict.fromkeys(("median", "low", "high", "own", "original"))
        return {**empty, "rounds": len(ratios), "state": BUSY}
    return {
        **spread,
        # The medians of both figures, over these rounds.
        "own": median(a for a, _ in pairs if a),
        "original": median(b for _, b in pairs if b),
        "rounds": len(ratios),
        "state": _state(spread["low"], spread["high"]),
    }


def _state(low: float, high: float) -> str:
    """Of a range as it is shown, with two digits: 1.00 is no difference."""
    if round(low, 2) > 1:
        return FASTER
    return SLOWER if round(high, 2) < 1 else SAME


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {"median": median(known), "low": min(known), "high": max(known)}


def _rate(count: float | None, seconds: float | None) -> float | None:
    return count / seconds if count and seconds else None
