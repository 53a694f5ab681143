"""Roundings of activations and of the cache, as this package's C++ takes them (`cpp/linear.h`)."""

from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor

from radquant.runtime.activations import Grid, levels
from radquant.settings.precision import GROUP, HEAD, INT, TENSOR, TOKEN, Activations, KVCache

SHARED = {TOKEN: 0, TENSOR: 1, GROUP: 2}  # a row, a sequence, a group of inputs
CHANNELS = 16  # of a head, that a group in the cache has a multiple of


@dataclass(frozen=True)
class Rounding:
    """How activations enter a product as integers of at most 8 bits."""

    numbers: tuple[int, ...]  # as cpp/rounding.h has them
    keep: float  # of a dynamic range
    ranges: Tensor | None = None  # scales and zeros of a static one, [2, 1] or [2, groups] float32

    @property
    def by_group(self) -> bool:
        return self.numbers[0] == SHARED[GROUP]

    def arguments(self, sequences: Tensor | None = None) -> tuple[Any, ...]:
        """What the operator radquant::linear is told of it."""
        return self.numbers, self.keep, self.ranges, sequences

    def cut(self, group: int) -> int:
        """Into which groups those of weights are cut, so that none has inputs of two scales."""
        return gcd(group, self.numbers[4])


def unfit(settings: Activations) -> str | None:
    """Why no product of integers computes this rounding, in a few words; None if one does."""
    if settings.type != INT:
        return f"it rounds activations to integers, not to {settings.type}"
    if settings.keep_from is not None:
        return "it keeps no activations as they are beside rounded ones"
    return None


def rounding_of(settings: Activations, static: Grid | None = None) -> Rounding:
    """The rounding that `settings` ask for, of the inputs of a layer with this static range."""
    low, high = levels(settings) if static is None else (static.low, static.high)
    symmetric = settings.symmetric
    if static is not None:
        symmetric = high < 128 and not bool(static.zero.any())
    size = settings.group_size if settings.granularity == GROUP else 0
    shared = SHARED[settings.granularity]
    if static is not None and not size:
        shared = SHARED[TOKEN]  # the same for each
    numbers = (shared, low, high, int(symmetric), size)
    ranges = None
    if static is not None:
        ranges = torch.stack([static.scale, static.zero]).float().view(2, -1).contiguous()
    return Rounding(numbers, settings.clip_ratio, ranges)


def unfit_cache(settings: KVCache, width: int) -> str | None:
    """Why the cache of the C++ decoder cannot be rounded so, in a few words; None if it can.

    width: channels of a head.
    """
    if settings.type != INT:
        return f"it rounds keys and values to integers, not to {settings.type}"
    size = settings.group_size if settings.granularity == GROUP else width
    if size % CHANNELS or width % size:
        return f"heads of {width} channels have no groups of {size} that it knows"
    return None


def of_cache(settings: KVCache, heads: int, width: int) -> tuple[int, ...]:
    """The rounding of keys and values, as `Rounding.numbers`: of `heads` heads of `width` channels.

    The last is how many neighbouring channels of a token, of all its heads, share a scale.
    """
    size = {TOKEN: heads * width, HEAD: width, GROUP: settings.group_size}[settings.granularity]
    alike = Activations(bits=settings.bits, symmetric=settings.symmetric)
    return (SHARED[GROUP], *levels(alike), int(settings.symmetric), size)
