"""NVFP4: E2M1 in blocks of 16 with two levels of scales, as compressed-tensors stores it.

A block has an E4M3 scale s, and a whole tensor one float32 number g, its *global scale*. A weight
is code · (s / g), with the quotient rounded to float32. So g is the reciprocal of what other
descriptions call the tensor's scale.

Block scales are chosen as in "Four Over Six" (Cook et al. 2025, arXiv:2512.02010). The largest
magnitude of a block becomes 6 or 4, whichever leaves the smaller squared error, because no number
lies between 4 and 6. g leaves room for the larger of the two scales. It puts the largest magnitude
of the tensor at 6 · 256, and 256 · 6/4 is an E4M3 number, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.types.kind import NumberType
    from radquant.settings.recipe import Recipe

NAME = "nvfp4"
BITS: int | None = 4
GROUP_SIZE: int | None = 16
ZERO_POINT: bool | None = False
LARGEST_SCALE, LEAST_SCALE = 448.0, 2.0**-9  # of E4M3
USUAL_LARGEST_SCALE = 256.0
AT_SIX, AT_FOUR = 6.0, 4.0


def problem(recipe: Recipe) -> str | None:
    return None


def outer(groups: Tensor, recipe: Recipe) -> Tensor | None:
    """The global scale, the same for all rows that are given, [out, 1] float32.

    vLLM multiplies layers that share an input in one product and needs one g for them, so those are
    to be given together.
    """
    largest = groups.abs().amax()
    scale = AT_SIX * USUAL_LARGEST_SCALE / largest
    scale = scale.where((largest > 0) & scale.isfinite(), scale.new_ones(()))
    return scale.expand(len(groups), 1).clone()


def find_grid(
    groups: Tensor, recipe: Recipe, keep: float = 1.0, outer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The quotients s / g of the better of the two scales; zeros are 0.

    With less than the whole range kept, its end becomes 6. outer: g, broadcast to the blocks.
    """
    import torch

    from radquant.packed.types import nvfp4
    from radquant.packed.types.mxfp4 import better_scale

    shared = nvfp4.outer(groups, recipe) if outer is None else outer
    assert shared is not None
    largest = groups.abs().amax(-1) * keep
    scale = scales_of(stored_scales(largest / AT_SIX, shared), shared)
    if keep == 1:
        wider = scales_of(stored_scales(largest / AT_FOUR, shared), shared)
        scale = better_scale(groups, scale, wider)
    return scale, torch.zeros_like(scale)


def stored_scales(scale: Tensor, global_scale: Tensor) -> Tensor:
    """The E4M3 scales nearest to scale · g, float8_e4m3fn; exact for what `scales_of` gave."""
    import torch

    scaled = (scale * global_scale).clamp(LEAST_SCALE, LARGEST_SCALE)
    return scaled.to(torch.float8_e4m3fn)


def scales_of(stored: Tensor, global_scale: Tensor) -> Tensor:
    """The quotients s / g, float32."""
    return stored.float() / global_scale


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
    from radquant.packed.float4 import nearest_codes

    return nearest_codes(weight / scale)


def values(codes: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe | None = None) -> Tensor:
    from radquant.packed.float4 import code_values

    return code_values(codes).mul_(scale)


def narrowed(scale: Tensor, zero: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    return scale / divisor, zero


if TYPE_CHECKING:
    from radquant.packed.types import nvfp4

    _: NumberType = nvfp4
