"""How often the report's intervals, tests and claims are right, by simulation.

In each cell studies are drawn of which the true difference is known. `normal` differences come
with patients who have several studies each, at an intraclass correlation. In `zeros` half of the
differences are 0 and the others symmetric with heavy tails, as between two models that often write
the same. In `losses` most are 0 and the others negative, as against a model that often writes
nothing of use. In `rare` a few reports lose much, and all others nothing or a little noise.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from radquant import statistics

LEVEL = 0.05
SIDE = LEVEL / 2
POWER = 0.8
PRECISIONS = 6
SIZES = (40, 100, 1000)
BOUNDS = (-1.0, 1.0)
SD = 0.2
COVERAGE = (0.93, 0.97)
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Cell:
    """Differences of mean 0, or `mean`, of patients with `each` reports."""

    name: str
    draw: Draw
    mean: float = 0.0
    each: int = 1

    def patients(self, reports: int) -> list[str] | None:
        """One label a report; the last patient has what is left."""
        return None if self.each == 1 else [str(row // self.each) for row in range(reports)]


def alike(each: int, correlation: float) -> Draw:
    """Normal differences that patients of `each` reports have in part in common."""

    def draw(rng: np.random.Generator, reports: int) -> np.ndarray:
        common = rng.normal(0, 1, -(-reports // each))[np.arange(reports) // each]
        own = rng.normal(0, 1, reports)
        return SD * (np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own)

    return draw


def zeros(rng: np.random.Generator, reports: int) -> np.ndarray:
    sizes = np.minimum(rng.exponential(0.15, reports), 1) * rng.choice([-1, 1], reports)
    return np.where(rng.random(reports) < 0.5, sizes, 0)


def losses(rng: np.random.Generator, reports: int) -> np.ndarray:
    sizes = np.minimum(rng.exponential(0.3, reports), 1)
    return -np.where(rng.random(reports) < 0.3, sizes, 0)


def rare(share: float, loss: float, noise: float) -> Draw:
    def draw(rng: np.random.Generator, reports: int) -> np.ndarray:
        others = rng.choice([-noise, noise], reports)
        return np.where(rng.random(reports) < share, -loss, others)

    return draw


LOST = -0.3 * 0.3 * (1 - np.exp(-1 / 0.3))  # the mean of `losses`
PATIENTS = [
    Cell(f"normal, {each} a patient, correlation {r:g}", alike(each, r), each=each)
    for each, r in ((3, 0.0), (3, 0.3), (3, 0.6), (10, 0.1), (10, 0.3))
]
SINGLE = [Cell("normal", alike(1, 0.0)), Cell("zeros", zeros), Cell("losses", losses, LOST)]
RARE = [
    Cell(
        f"rare, {100 * share:g} % lose {loss:g}" + (f", others ±{noise:g}" if noise else ""),
        rare(share, loss, noise),
        -share * loss,
    )
    for noise in (0.0, 0.02)
    for share, loss in ((0.01, 1.0), (0.02, 0.5), (0.05, 0.2))
]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--runs", type=int, default=1000, help="simulated studies for each number (%(default)s)")
    add("--resamples", type=int, default=1000, help="of each interval and test (%(default)s)")
    return parser.parse_args()


def studies(cell: Cell, reports: int, runs: int) -> Iterator[tuple[int, np.ndarray]]:
    rng = np.random.default_rng(reports)
    for seed in range(runs):
        yield seed, cell.draw(rng, reports)


# d, resamples, seed, patients
Ends = Callable[[np.ndarray, int, int, Sequence[str] | None], tuple[float, float]]


def reported(
    d: np.ndarray, resamples: int, seed: int, patients: Sequence[str] | None
) -> tuple[float, float]:
    """The interval of the report."""
    found = statistics.bootstrap_interval(d, resamples, 1 - LEVEL, seed, patients, bounds=BOUNDS)
    return found.low, found.high


def by_report(
    d: np.ndarray, resamples: int, seed: int, patients: Sequence[str] | None
) -> tuple[float, float]:
    """The same without patients and without knowing the range of a difference."""
    found = statistics.bootstrap_interval(d, resamples, 1 - LEVEL, seed)
    return found.low, found.high


def plain_bca(
    d: np.ndarray, resamples: int, seed: int, patients: Sequence[str] | None
) -> tuple[float, float]:
    """What is usually meant by a bootstrap interval."""
    if not d.std():
        return d[0], d[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # undefined: nan, which holds nothing
        found = stats.bootstrap((d,), np.mean, n_resamples=resamples, method="BCa", rng=seed)
    return found.confidence_interval


def students_t(
    d: np.ndarray, resamples: int, seed: int, patients: Sequence[str] | None
) -> tuple[float, float]:
    half = stats.t.isf(LEVEL / 2, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    return d.mean() - half, d.mean() + half


def coverage(ends: Ends, cell: Cell, reports: int, runs: int, resamples: int) -> float:
    """How often the 95 % interval holds the true mean."""
    held, patients = 0, cell.patients(reports)
    for seed, d in studies(cell, reports, runs):
        low, high = ends(d, resamples, seed, patients)
        held += low - 1e-12 <= cell.mean <= high + 1e-12
    return held / runs


def false_alarms(
    cell: Cell, reports: int, runs: int, resamples: int, by_patient: bool = True
) -> float:
    """How often two equally good systems are called different."""
    patients = cell.patients(reports) if by_patient else None
    return float(
        np.mean(
            [
                statistics.sign_flip_p(d - cell.mean, resamples, seed, patients) < LEVEL
                for seed, d in studies(cell, reports, runs)
            ]
        )
    )


def family_alarms(cell: Cell, reports: int, runs: int, resamples: int) -> float:
    """How often any of six equally good precisions is called different after Holm's correction.

    All are compared with the same original, so their differences are correlated.
    """
    rng = np.random.default_rng(reports)
    alarms, patients = 0, cell.patients(reports)
    for seed in range(runs):
        shared = cell.draw(rng, reports)
        p = {
            str(number): statistics.sign_flip_p(
                cell.draw(rng, reports) - shared, resamples, seed, patients
            )
            for number in range(PRECISIONS)
        }
        alarms += min(statistics.holm(p).values()) < LEVEL
    return alarms / runs


def margin_of(cell: Cell, reports: int) -> float:
    """A margin that could be shown: the true loss, else three standard errors."""
    if cell.mean:
        return -cell.mean
    of_mean = [cell.draw(np.random.default_rng(seed), reports).mean() for seed in range(300)]
    return float(min(0.9, 3 * np.std(of_mean)))


def false_claims(cell: Cell, reports: int, runs: int, resamples: int) -> tuple[float, float, float]:
    """How often a loss of just the margin is called smaller than it.

    By non-inferiority, by equivalence, and by Student's t of the reports, as is usual.
    """
    margin, patients = margin_of(cell, reports), cell.patients(reports)
    claims = np.zeros(3)
    for seed, d in studies(cell, reports, runs):
        shifted = d - cell.mean - margin
        usual = _usual_p(shifted + margin)
        claims[2] += usual < SIDE
        if usual > 0.2:  # then the product's p, the largest of several, is above its level too
            continue
        claims[0] += _noninferior(shifted, margin, resamples, seed, patients)
        claims[1] += (
            statistics.equivalence_p(shifted, margin, 1 + margin, resamples, seed, patients) < SIDE
        )
    return tuple(map(float, claims / runs))  # type: ignore[return-value]


def _usual_p(gains: np.ndarray) -> float:
    if np.ptp(gains) < 1e-12:
        return 0.0 if gains[0] > 1e-12 else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(stats.ttest_1samp(gains, 0, alternative="greater").pvalue)


def _noninferior(
    d: np.ndarray, margin: float, resamples: int, seed: int, patients: Sequence[str] | None
) -> bool:
    p = statistics.noninferiority_p(d + margin, margin - 1, resamples, seed, patients)
    return p < SIDE


def settled(
    cell: Cell, reports: int, margin: float, loss: float, runs: int, resamples: int
) -> float:
    """How often a named one of six precisions is settled after Holm's correction.

    loss: the true loss of all six. Settled is what is shown to lose less than the margin, or to
    differ from the original.
    """
    rng = np.random.default_rng(reports)
    count, patients = 0, cell.patients(reports)
    for seed in range(runs):
        drawn = [cell.draw(rng, reports) - loss for _ in range(PRECISIONS)]
        different = _adjusted([statistics.sign_flip_p(d, resamples, seed, patients) for d in drawn])
        count += (
            different < LEVEL
            or _adjusted(
                [
                    statistics.noninferiority_p(d + margin, margin - 1, resamples, seed, patients)
                    for d in drawn
                ]
            )
            < SIDE
        )
    return count / runs


def _adjusted(p_values: Sequence[float]) -> float:
    return statistics.holm({str(number): p for number, p in enumerate(p_values)})["0"]


def held_by_range(
    cell: Cell, reports: int, margin: float, runs: int
) -> tuple[int, float, float, list[int]]:
    """The number of reports truly needed, how often a pilot's range holds it, and single numbers.

    The last are the 5 % and 95 % quantiles of what pilots give without a range.
    """
    patients, size = cell.patients(reports), cell.each
    wide = cell.draw(np.random.default_rng(1), 300_000)
    sd = statistics.compare(wide, 100, 1 - LEVEL, 0, cell.patients(len(wide)), most=None).sd
    plan = (PRECISIONS, SIDE, POWER, 1.0, size)
    needed = statistics.reports_to_settle(margin, sd, *plan)
    held, widths, single = 0, [], []
    for seed, d in studies(cell, reports, runs):
        found = statistics.compare(d, 100, 1 - LEVEL, seed, patients, bounds=BOUNDS, most=None)
        low, high = statistics.settle_range(margin, (found.spread.low, found.spread.high), *plan)
        held += low <= statistics.rounded(needed) <= high
        widths.append(high / low)
        single.append(statistics.reports_to_settle(margin, found.sd, *plan))
    ends = [int(np.quantile(single, q)) for q in (0.05, 0.95)]
    return needed, held / runs, float(np.median(widths)), ends


def seconds() -> float:
    """CPU time of 6 precisions × 3 columns on 3,000 reports with 10,000 resamples."""
    draws = [zeros(np.random.default_rng(seed), 3000) for seed in range(PRECISIONS * 3)]
    started = time.process_time()
    for d in draws:
        statistics.compare(d, 10_000, 1 - LEVEL, 0, bounds=BOUNDS)
        statistics.noninferiority_p(d + 0.01, -0.99, 10_000, 0)
        statistics.equivalence_p(d, 0.01, 1, 10_000, 0)
    return time.process_time() - started


def _cell(rate: float, runs: int, least: float = 0.0, most: float = 1.0) -> str:
    """A share, with ! behind it where it is out of its bounds by more than two standard errors."""
    chance = 2 * np.sqrt(max(least * (1 - least), most * (1 - most)) / runs)
    within = least - chance <= rate <= most + chance
    return f"{100 * rate:.1f} %" + ("" if within else " !")


def _head(title: str, columns: Sequence[str]) -> None:
    print(f"\n{title}\n")
    print(f"| {' | '.join(columns)} |\n|---|" + "---:|" * (len(columns) - 1))


def _row(name: str, cells: Sequence[str]) -> None:
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def coverage_table(runs: int, resamples: int) -> None:
    columns = [f"{n:,}: {which}" for n in SIZES for which in ("report's", "by report", "t alone")]
    _head("Coverage of the 95 % interval, by number of reports", ["differences", *columns])
    for cell in [*SINGLE, *PATIENTS, *RARE]:
        # More than 97 % cannot be helped where hardly any report differs.
        bounds = (COVERAGE[0], 1.0) if cell in RARE else COVERAGE
        cells = []
        for n in SIZES:
            own = coverage(reported, cell, n, runs, resamples)
            usual = own if cell in SINGLE else coverage(by_report, cell, n, runs, resamples)
            alone = coverage(students_t, cell, n, runs, resamples)
            cells += [_cell(own, runs, *bounds), _cell(usual, runs), _cell(alone, runs)]
        _row(cell.name, cells)


def alarm_table(runs: int, resamples: int) -> None:
    columns = [f"{n:,}: {which}" for n in SIZES for which in ("by patient", "by report", "of six")]
    _head("False alarms at 5 %, by number of reports", ["differences", *columns])
    for cell in [*SINGLE, *PATIENTS]:
        cells = []
        for n in SIZES:
            own = usual = false_alarms(cell, n, runs, resamples)
            if cell.each > 1:
                usual = false_alarms(cell, n, runs, resamples, by_patient=False)
            families = max(1, runs // 3)
            six = family_alarms(cell, n, families, resamples)
            cells += [_cell(own, runs, most=LEVEL), _cell(usual, runs)]
            cells.append(_cell(six, families, most=LEVEL))
        _row(cell.name, cells)


def claim_table(runs: int, resamples: int) -> None:
    kinds = ("no worse", "equivalent", "by t alone")
    columns = [f"{n:,}: {which}" for n in SIZES for which in kinds]
    _head("False claims, where the loss is the margin", ["differences", *columns])
    for cell in [*SINGLE, *PATIENTS, *RARE]:
        cells = []
        for n in SIZES:
            *own, usual = false_claims(cell, n, runs, resamples)
            cells += [*(_cell(rate, runs, most=LEVEL) for rate in own), _cell(usual, runs)]
        _row(cell.name, cells)


def plan_table(runs: int, resamples: int) -> None:
    columns = [
        "differences",
        "margin",
        "reports",
        "settled, nothing differs",
        "settled, all lose it",
    ]
    _head(f"Settled at the number of reports said to settle with {POWER:.0%}", columns)
    for cell, margin in (
        (SINGLE[0], 0.05),
        (SINGLE[1], 0.02),
        (SINGLE[1], 0.05),
        (PATIENTS[1], 0.05),
        (PATIENTS[4], 0.1),
        (Cell("nothing but ±0.02", rare(0, 0, 0.02)), 0.02),
    ):
        wide = cell.draw(np.random.default_rng(1), 300_000)
        found = statistics.compare(wide, 100, 1 - LEVEL, 0, cell.patients(len(wide)), most=None)
        n = statistics.reports_to_settle(margin, found.sd, PRECISIONS, SIDE, POWER, 1.0, cell.each)
        rates = [settled(cell, n, margin, loss, runs, resamples) for loss in (0.0, margin)]
        _row(cell.name, [f"{margin:g}", f"{n:,}", *(_cell(rate, runs, POWER) for rate in rates)])


def pilot_table(runs: int) -> None:
    columns = ["differences", "pilot", "needed", "range holds it", "high ÷ low", "without a range"]
    _head("Pilots: the number of reports that settle a margin of 0.01", columns)
    for cell in (*SINGLE[:2], PATIENTS[1], RARE[0]):
        for n in (40, 100):
            needed, held, width, (low, high) = held_by_range(cell, n, 0.01, runs)
            cells = [f"{n}", f"{needed:,}", _cell(held, runs, 0.9), f"{width:.1f}"]
            _row(cell.name, [*cells, f"{low:,} to {high:,}"])


def main() -> None:
    args = parse_arguments()
    print(f"{args.runs:,} studies a number; ! marks what is out of its bounds by more than chance.")
    started = time.process_time()
    coverage_table(args.runs, args.resamples)
    alarm_table(args.runs, args.resamples)
    claim_table(args.runs, args.resamples)
    plan_table(max(1, args.runs // 4), args.resamples)
    pilot_table(max(1, args.runs // 4))
    print(
        f"\n6 precisions, 3 columns, 3,000 reports, 10,000 resamples: {seconds():.1f} s of CPU time"
    )
    print(f"All of this: {(time.process_time() - started) / 60:.1f} minutes of CPU time")


if __name__ == "__main__":
    main()
