"""What a number type is: the names that its module has. It says how a weight is stored as a number.

A type is one module beside this one and one line of `registry.NUMBER_TYPES`. It is imported while a
configuration is checked, so it imports torch, and what needs torch, inside its functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from radquant import registry

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.settings.recipe import Recipe


class NumberType(Protocol):
    """The names of a type's module. Weights come by group: [..., group], scales [...], float32."""

    NAME: str  # as in registry.NUMBER_TYPES
    # A recipe's bits, group_size and zero_point with this type. None: the recipe says so itself.
    BITS: int | None
    GROUP_SIZE: int | None
    ZERO_POINT: bool | None

    def problem(self, recipe: Recipe) -> str | None:
        """Why the type does not go with the rest of a recipe: a sentence, or None if it does."""

    def outer(self, groups: Tensor, recipe: Recipe) -> Tensor | None:
        """What groups share, [out, groups, …] or, of whole rows, [out, 1, …], float32 as it is
        stored; None: nothing.

        groups: all of the rows' weights, [out, groups, group] float32.
        """

    def find_grid(
        self, groups: Tensor, recipe: Recipe, keep: float = 1.0, outer: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scale and zero of each group, [..., group] float32 -> two [...] float32, as they can be
        stored.

        keep: the share of the range to cover. outer: what `outer` says, for [out, groups, group],
        or one group's part of it, [out, …], for [out, group]; None: `groups` are all of their rows.
        """

    def nearest(self, weight: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
        """The codes of the nearest grid points, whole numbers in 0 … 255, as a new float tensor.

        scale, zero: broadcast over `weight`.
        """

    def values(
        self, codes: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe | None = None
    ) -> Tensor:
        """The weights that codes stand for, float32, to the bit; scale and zero broadcast.

        The result may be written in the place of `codes`.
        """

    def narrowed(self, scale: Tensor, zero: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and zero of the same grid with every value divided by `divisor`."""


def number_type(name: str) -> NumberType:
    """The number type of this name; raises UserError if there is none."""
    return cast(NumberType, registry.load_kind(registry.NUMBER_TYPES, name))
