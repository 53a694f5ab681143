"""How often the report's intervals and tests are right, by simulation, and how long they take.

Differences are drawn in three shapes: normal; `zeros`, half of them 0 and the others symmetric with
heavy tails, as between two models that often write the same; and `losses`, most of them 0 and the
others negative, as against a model that often writes nothing of use.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats

from radquant import statistics

SIZES = (20, 40, 64, 100, 300)
LEVEL = 0.05
PRECISIONS = 6


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(0, 0.3, shape)


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    sizes = np.minimum(rng.exponential(0.15, shape), 1) * rng.choice([-1, 1], shape)
    return np.where(rng.random(shape) < 0.5, sizes, 0)


def losses(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    sizes = np.minimum(rng.exponential(0.3, shape), 1)
    mean = 0.3 * 0.3 * (1 - np.exp(-1 / 0.3))  # of what is taken away
    return mean - np.where(rng.random(shape) < 0.3, sizes, 0)


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": normal,
    "zeros": zeros,
    "losses": losses,
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--runs", type=int, default=4000, help="simulated studies for each row (%(default)s)")
    add("--resamples", type=int, default=1000, help="of each interval and test (%(default)s)")
    return parser.parse_args()


Ends = Callable[[np.ndarray, int, int], tuple[float, float]]  # of values, resamples, seed


def reported(d: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """The interval of the report."""
    found = statistics.bootstrap_interval(d, resamples, 1 - LEVEL, seed)
    return found.low, found.high


def plain_bca(d: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """What is usually meant by a bootstrap interval."""
    if not d.std():
        return d[0], d[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # undefined: nan, which holds nothing
        found = stats.bootstrap((d,), np.mean, n_resamples=resamples, method="BCa", rng=seed)
    return found.confidence_interval


def students_t(d: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    half = stats.t.isf(LEVEL / 2, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    return d.mean() - half, d.mean() + half


def coverage(ends: Ends, shape: str, reports: int, runs: int, resamples: int) -> float:
    """How often the 95 % interval holds the true mean, 0."""
    draws = SHAPES[shape](np.random.default_rng(reports), (runs, reports))
    found = [ends(d, resamples, seed) for seed, d in enumerate(draws)]
    return float(np.mean([low <= 0 <= high for low, high in found]))


def false_alarms(shape: str, reports: int, runs: int, resamples: int) -> float:
    """How often any of six equally good precisions is called different after Holm's correction.

    All are compared with the same original, so their differences are correlated.
    """
    rng = np.random.default_rng(reports)
    alarms = 0
    for seed in range(runs):
        own = SHAPES[shape](rng, (PRECISIONS, reports))
        shared = SHAPES[shape](rng, (reports,))
        p = {str(k): statistics.sign_flip_p(d - shared, resamples, seed) for k, d in enumerate(own)}
        alarms += min(statistics.holm(p).values()) < LEVEL
    return alarms / runs


def false_equivalence(shape: str, reports: int, runs: int) -> float:
    """How often a true difference of just the margin is called equivalent."""
    draws = SHAPES[shape](np.random.default_rng(reports), (runs, reports))
    margin = float(draws.std() * 3 / np.sqrt(reports))
    return float(np.mean([statistics.equivalence_p(d + margin, margin) < LEVEL for d in draws]))


def detections(shape: str, reports: int, runs: int, resamples: int) -> float:
    """How often a true difference of the size called detectable is found."""
    draws = SHAPES[shape](np.random.default_rng(reports), (runs, reports))
    effect = statistics.detectable_difference(reports, float(draws.std()))
    found = [
        statistics.sign_flip_p(d + effect, resamples, seed) < LEVEL for seed, d in enumerate(draws)
    ]
    return float(np.mean(found))


def seconds() -> float:
    """CPU time of comparing 6 precisions on 3,000 reports with 10,000 resamples."""
    draws = zeros(np.random.default_rng(0), (PRECISIONS, 3000))
    started = time.process_time()
    for d in draws:
        statistics.compare(d, 10_000, 1 - LEVEL, 0)
        statistics.equivalence_p(d, 0.01)
    return time.process_time() - started


def main() -> None:
    args = parse_arguments()
    print(
        "| differences | reports | coverage of the 95 % interval | BCa alone | t alone "
        "| false alarms, 6 precisions | false equivalence "
        "| found, if as large as called detectable |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for shape in SHAPES:
        for reports in SIZES:
            rates = [
                *(
                    coverage(ends, shape, reports, args.runs, args.resamples)
                    for ends in (reported, plain_bca, students_t)
                ),
                false_alarms(shape, reports, args.runs, args.resamples),
                false_equivalence(shape, reports, args.runs),
                detections(shape, reports, args.runs, args.resamples),
            ]
            cells = " | ".join(f"{100 * rate:.1f} %" for rate in rates)
            print(f"| {shape} | {reports} | {cells} |", flush=True)
    print(f"\n6 precisions, 3,000 reports, 10,000 resamples: {seconds():.1f} s of CPU time")


if __name__ == "__main__":
    main()
