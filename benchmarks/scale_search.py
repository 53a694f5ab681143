"""What AWQ's scale search misses: it tries some of its exponents, on some of a layer's rows.

For every group of layers that share an input, it prints the output error of the scale that it
finds. Beside it stands that of the best of all exponents, both over all rows.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from radquant.quantization import awq
from radquant.quantization.job import Job
from radquant.quantization.quantizing import quantize
from radquant.settings.recipe import Recipe

TOLERANCE = 0.01  # of the best one's error: a loss that is counted as none


class Enough(Exception):
    """As many searches are judged as were asked for."""


@dataclass(frozen=True)
class Search:
    """Squared output errors that one search is judged by."""

    found: float
    best: float  # of all exponents, and of no scale
    unscaled: float

    @property
    def missed(self) -> float:
        return self.found / self.best - 1


@contextmanager
def watched(searches: list[Search], most: int | None = None) -> Iterator[None]:
    """Judge every search meanwhile; raise `Enough` once there are `most`."""
    search = awq.search_scale

    def judged(
        weights: Any, statistics: Any, channels: Tensor, width: int, recipe: Recipe, *others: Any
    ) -> Tensor:
        found = search(weights, statistics, channels, width, recipe, *others)
        rounded = awq.scaled_rounding(statistics.gram, recipe)
        whole = [(weight, 1.0) for weight in weights]

        def loss(scale: Tensor) -> float:
            return awq.rounded_weight_loss(whole, statistics.gram, rounded, scale[channels])

        unscaled = loss(torch.ones(width))
        scales = awq.candidates(weights, statistics, channels, width, recipe)
        best = min(unscaled, *map(loss, scales))
        searches.append(Search(loss(found), best, unscaled))
        if len(searches) == most:
            raise Enough
        return found

    with mock.patch.object(awq, "search_scale", judged):
        yield


def judge(model: Path, samples: Path, recipe: Recipe, most: int | None = None) -> list[Search]:
    """Quantize a model and judge its searches, at most so many."""
    searches: list[Search] = []
    with tempfile.TemporaryDirectory() as scratch, watched(searches, most):
        job = Job(model, Path(scratch) / "quantized", samples)
        with suppress(Enough):
            quantize(job, recipe)
    return searches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="of a finished run (%(default)s)")
    add("--group-size", type=int, default=64, help="default: %(default)s")
    args = parser.parse_args()
    recipe = Recipe(method="awq", bits=4, group_size=args.group_size)
    samples = args.results / "calibration" / "samples.parquet"
    searches = judge(args.results / "models" / "original", samples, recipe)
    missed = [each.missed for each in searches]
    gained = [1 - each.found / each.unscaled for each in searches]
    print(
        f"{len(searches)} searches: {sum(m > 1e-6 for m in missed)} find another scale than the "
        f"best one. {sum(m > TOLERANCE for m in missed)} of them find one whose error is over "
        f"{TOLERANCE:.0%} larger. The error is larger by {sum(missed) / len(missed):.3%} on "
        f"average and by {max(missed):.2%} at most. Scaling takes {sum(gained) / len(gained):.1%} "
        "of it away on average."
    )


if __name__ == "__main__":
    main()
