"""What the scales, zeros and integers of packed layers tell of damage, without the original."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from radquant.checkpoints.building import read_settings
from radquant.files import read_json
from radquant.packed.formats import Settings
from radquant.packed.grid import LEAST_SCALE
from radquant.packed.linear import PackedLinear
from radquant.packed.packing import unpack_columns
from radquant.verification.selftest import Check


def file_checks(
    directory: Path, loaded: Mapping[str, PackedLinear], compared: bool
) -> Iterator[Check]:
    """Scales, zeros and integers of every packed layer. Loading has checked shapes and hashes.

    compared: whether the weights are compared with the original's, too, which tell of a layer of
    zeros whether it should be one.
    """
    config = read_json(directory / "config.json")["quantization_config"]
    settings = read_settings(directory, config)
    for name, layer in loaded.items():
        own = settings.of(name) or settings  # layers may differ in their bits
        scales = layer.group_scales()
        wrong = int((~torch.isfinite(scales) | (scales <= 0)).sum())
        yield Check(f"{name}: scales that are not positive numbers", wrong, 0)
        yield Check(f"{name}: zeros out of place", misplaced_zeros(layer, own), 0)
        share = 0.0 if compared and is_zero(layer) else unused(layer, own)
        yield Check(f"{name}: share of the integers' range unused", share, 0.5)


def misplaced_zeros(layer: PackedLinear, settings: Settings) -> int:
    """Zeros outside of the range, or beside the middle of a symmetric one."""
    zeros = unpack_columns(layer.qzeros, layer.bits)
    if settings.symmetric:
        return int((zeros != 2 ** (settings.bits - 1)).sum())
    return int((zeros >= 2**settings.bits).sum())


def unused(layer: PackedLinear, settings: Settings) -> float:
    """The share of the range of integers that no weight of a layer lies in.

    It is small if the layer is read with as many bits as it was written with.
    """
    integers = unpack_columns(layer.qweight, layer.bits)
    spread = int(integers.max() - integers.min())
    if 2 * spread < 2**settings.bits - 1:
        spread = max(spread, reach(layer, integers, settings.bits))
    return 1 - spread / (2**settings.bits - 1)


def is_zero(layer: PackedLinear) -> bool:
    """Whether every weight is the zero of its group."""
    zeros = unpack_columns(layer.qzeros, layer.bits)
    integers = unpack_columns(layer.qweight, layer.bits).unflatten(0, (len(zeros), -1))
    return bool((integers == zeros[:, None]).all())


def reach(layer: PackedLinear, integers: Tensor, bits: int) -> int:
    """How many steps from their zero to their end the weights of a layer lie that are nearly equal.

    0 where that cannot be. Zeros of weights that have one sign lie at an end of the range. Those of
    a symmetric grid lie in its middle, and then no weight lies at its least integer. In a layer of
    zeros the scales are the least that there are.
    """
    zeros, most, half = unpack_columns(layer.qzeros, layer.bits), 2**bits - 1, 2 ** (bits - 1)
    if is_zero(layer):
        return most * bool((layer.group_scales() < 1.01 * LEAST_SCALE).all())
    apart = (integers.unflatten(0, (len(zeros), -1)) - zeros[:, None]).abs()
    if bool((zeros == half).all()):
        return most * int(apart.max()) // (half - 1) * bool((integers > 0).all())
    return int(apart.max()) * bool(((zeros == 0) | (zeros == most)).all())
