"""How the weights of a checkpoint are quantized: the values of a recipe, and which go together.

Nothing here needs PyTorch, so that a configuration is checked before anything heavy is imported.
"""

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from radquant import registry
from radquant.settings.precision import INT, STATIC, Activations
from radquant.settings.section import Off, OneOf, Section, wrong
from radquant.settings.sentences import made

NONE, SMOOTH, HADAMARD, AUTO = "none", "smooth", "hadamard", "auto"
WHOLE_ROW = -1  # the group size that stands for one group a row, "per channel"
GROUP_SIZES = (16, 32, 64, 128, WHOLE_ROW)
# Of integers. Other types of numbers say themselves how many channels share a scale.
INTEGER_GROUP_SIZES = (32, 64, 128, WHOLE_ROW)
INTEGER_BITS = (2, 3, 4, 8)
FIXED_BY_TYPE = ("bits", "group_size", "zero_point")


# Bits of a weight. A mixture takes those that its method rounds to and its format holds.
WIDTHS = (2, 3, 4, 5, 6, 8)
MIXED_WIDTHS = (3, 4, 8)


class MixedBits(Section):
    """Bits that differ between layers: more for those where rounding costs the most."""

    average: float = Field(
        ge=min(MIXED_WIDTHS),
        le=max(MIXED_WIDTHS),
        description="The linear layers take no more room than if every weight had so many bits, "
        "in groups of group_size. It may be spent on bits, and on scales of smaller "
        "groups",
    )


if TYPE_CHECKING:
    # Of every recipe that a layer is rounded with; `with_bits` makes it of one with a mixture.
    Bits = int
else:
    Bits = Annotated[int | MixedBits, OneOf(WIDTHS, section=MixedBits)]


class Recipe(Section):
    """How the weights of a checkpoint are quantized."""

    method: Annotated[str, OneOf(("awq", "gptq", "rtn"))] = Field(
        "awq",
        description="awq (activation-aware), gptq, or rtn (plain rounding, which by itself needs "
        "no calibration)",
    )
    type: Annotated[str, OneOf(registry.NUMBER_TYPES)] = Field(
        INT,
        description="How a weight is stored as a number; any but int fixes bits, group_size and "
        "zero_point",
    )
    bits: Bits = Field(
        4,
        description="Bits of a weight; 2 not with awq, 5 and 6 only with types that have them. "
        "{average: 4.25} gives each layer 4 or 8, with gptq also 3, in groups of "
        "group_size or smaller ones. What rounding a layer costs decides",
    )
    group_size: Annotated[int, OneOf(GROUP_SIZES)] = Field(
        128,
        description="Input channels that share a scale, -1 for all of a row; must divide every "
        "layer's width",
    )
    zero_point: Annotated[bool, Off("symmetric", "a grid about 0")] = Field(
        True, description="Asymmetric grid with a zero point, or a grid about 0"
    )
    rounding: Annotated[str, OneOf(("nearest", "gptq"))] = Field(
        "nearest",
        description="awq only; nearest, or gptq for GPTQ's rounding of the scaled weights",
    )
    clip: bool = Field(
        True, description="awq and gptq; search how much of each group's range to keep"
    )
    desc_act: bool = Field(
        False,
        description="gptq only; form groups in order of activation, which needs a group index",
    )
    damp_percent: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="GPTQ's rounding; share of the mean diagonal added to the Gram matrix",
    )
    transform: Annotated[str, OneOf((NONE, SMOOTH, HADAMARD))] = Field(
        NONE,
        description="A change before rounding that leaves what the model computes. smooth is "
        "SmoothQuant: outlier input channels go into the weights; not with awq. "
        "hadamard is QuaRot: it rotates the model",
    )
    smooth_attention: bool = Field(
        False,
        description="Move outlier channels of the keys into the queries before rounding (QoQ)",
    )
    prefix: Annotated[str, OneOf((NONE, AUTO))] = Field(
        NONE,
        description="With auto, outlier tokens are found, if any, and their keys and values are "
        "stored before every text (PrefixQuant)",
    )
    activations: Activations | None = Field(
        None,
        description="Rounding of activations that the weights, and static ranges, are fitted to. "
        "precisions says what is rounded at run time",
    )
    progressive: bool = Field(
        False,
        description="For 4 bits with zero points only. QoQ's grid, whose group scales are whole "
        "multiples of an INT8 scale of the channel, for W4A8 products in integers",
    )

    @model_validator(mode="before")
    @classmethod
    def with_own_rounding(cls, values: Any) -> Any:
        """GPTQ's rounding is part of GPTQ."""
        if not isinstance(values, Mapping) or values.get("method") != "gptq":
            return values
        rounding = values.get("rounding", "nearest")
        return {**values, "rounding": "gptq" if rounding == "nearest" else rounding}

    @model_validator(mode="before")
    @classmethod
    def with_values_of_type(cls, values: Any) -> Any:
        """What a type of numbers fixes need not be said."""
        if not isinstance(values, Mapping) or values.get("type", INT) not in registry.NUMBER_TYPES:
            return values
        return {**fixed_by_type(values.get("type", INT)), **values}

    @model_validator(mode="after")
    def check_values(self) -> Self:
        """Refuse values that exclude each other."""
        check_type(self)
        if mixture(self):
            check_mixture(self)
        if self.method == "awq" and self.bits == 2:
            raise wrong(": method awq cannot do 2 bits; use 3, 4 or 8 bits, or method gptq")
        if self.method == "rtn" and self.rounding == "gptq":
            raise wrong(
                ": rounding gptq needs calibration, which method rtn has not; use awq or gptq"
            )
        if self.desc_act and self.method != "gptq":
            raise wrong(f": desc_act does not go with method {self.method}; use method gptq")
        if self.method == "awq" and self.transform == SMOOTH:
            raise wrong(
                ": transform smooth does not go with method awq, which scales inputs itself and "
                "knows their rounding; leave it out, or use rtn or gptq"
            )
        if self.progressive:
            check_progressive(self)
        return self


def fixed_by_type(name: str) -> dict[str, Any]:
    """What a type of numbers says of a recipe's other values."""
    kind = registry.load_kind(registry.NUMBER_TYPES, name)
    said = {key: getattr(kind, key.upper()) for key in FIXED_BY_TYPE}
    return {key: value for key, value in said.items() if value is not None}


def check_type(recipe: Recipe) -> None:
    """Refuse a type of numbers with values that it does not go with."""
    for key, value in fixed_by_type(recipe.type).items():
        found = recipe_values(recipe)[key]
        if found != value:
            raise wrong(
                f": type {recipe.type} has {key} {json.dumps(value)}, not "
                f"{json.dumps(found)}; leave {key} out"
            )
    if recipe.type == INT and recipe.group_size not in INTEGER_GROUP_SIZES:
        sizes = ", ".join(map(str, INTEGER_GROUP_SIZES))
        raise wrong(f": type int has no groups of {recipe.group_size}; use one of {sizes}")
    whole = mixture(recipe) is None
    if recipe.type == INT and whole and recipe.bits not in INTEGER_BITS:
        bits = ", ".join(map(str, INTEGER_BITS))
        raise wrong(f": type int has no {recipe.bits} bits; use one of {bits}")
    if recipe.type != INT and (recipe.desc_act or recipe.progressive):
        key = "desc_act" if recipe.desc_act else "progressive"
        raise wrong(f": {key} does not go with type {recipe.type}; leave it out, or use type int")
    inputs = recipe.activations
    if recipe.type == INT and inputs and inputs.type != INT and inputs.range == STATIC:
        raise wrong(
            f": static activations of type {inputs.type} are stored with weights of that type; "
            f"use type {inputs.type}, or range dynamic"
        )
    if problem := registry.load_kind(registry.NUMBER_TYPES, recipe.type).problem(recipe):
        raise wrong(f": {problem}")


def mixture(recipe: Recipe) -> MixedBits | None:
    """The bits of a recipe if they differ between layers."""
    bits: Any = recipe.bits
    return bits if isinstance(bits, MixedBits) else None


def with_bits(recipe: Recipe, bits: int, group_size: int) -> Recipe:
    """The recipe of layers that get so many bits in such groups."""
    return recipe.model_copy(update={"bits": bits, "group_size": group_size})


def bits_in_words(values: Mapping[str, Any]) -> str:
    """ "4", or "4.25 on average", of a recipe's plain values."""
    bits = values["bits"]
    return f"{bits['average']:g} on average" if isinstance(bits, Mapping) else str(bits)


def widths(recipe: Recipe, held: Collection[int] = MIXED_WIDTHS) -> tuple[int, ...]:
    """The bits that layers of a mixture can get. held: what the format holds.

    To nearest, 3 bits cost more than they save.
    """
    least = 3 if uses_gptq_rounding(recipe) else 4
    return tuple(each for each in MIXED_WIDTHS if each >= least and each in held)


def candidates(recipe: Recipe, held: Collection[int]) -> tuple[Recipe, ...]:
    """The recipes that a layer of a mixture can get.

    They have so many bits, in groups as they are asked for. As scales are bits, too, smaller groups
    are tried as well. held: the bits that the format holds.

    With 8 bits more scales gain nothing.
    """
    sizes = [each for each in INTEGER_GROUP_SIZES if WHOLE_ROW < each < recipe.group_size]
    return tuple(
        with_bits(recipe, bits, size)
        for bits in widths(recipe, held)
        for size in (recipe.group_size, *(sizes if bits < max(MIXED_WIDTHS) else ()))
    )


def check_mixture(recipe: Recipe) -> None:
    """Refuse an average of bits with values that it does not go with."""
    mixed = mixture(recipe)
    assert mixed is not None
    for bad, what in (
        (recipe.progressive, "progressive scales"),
        (recipe.transform != NONE, f"transform {recipe.transform}"),
        (recipe.smooth_attention, "smooth_attention"),
        (recipe.prefix != NONE, f"prefix {recipe.prefix}"),
        (recipe.activations is not None, "weights fitted to activations"),
    ):
        if bad:
            raise wrong(f": an average of bits does not go with {what}; leave it out")
    if mixed.average < min(widths(recipe)):
        raise wrong(
            f": bits on average {mixed.average:g} needs layers of 3 bits, which go with GPTQ's "
            "rounding alone; use method gptq, or an average of at least 4"
        )


def check_progressive(recipe: Recipe) -> None:
    """Refuse progressive quantization with values that it does not go with."""
    for bad, what in (
        (recipe.bits != 4, f"{recipe.bits} bits; use 4"),
        (recipe.group_size == WHOLE_ROW, "group size -1; use 32, 64 or 128"),
        (not recipe.zero_point, "a grid without zero points; set zero_point to true"),
        (recipe.desc_act, "desc_act; leave it out"),
    ):
        if bad:
            raise wrong(f": progressive does not go with {what}")


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """The recipe of a checkpoint in the configuration, every default filled in.

    Raises UserError if a value is unknown or two exclude each other.
    """
    known = {name: values[name] for name in Recipe.model_fields if name in values}
    return made(Recipe, known)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, for JSON."""
    return recipe.model_dump(mode="json", include=set(Recipe.model_fields))


def known_poor(values: Mapping[str, Any]) -> str | None:
    """What is known of a recipe's plain values that makes its model useless; None: nothing is."""
    if (
        values.get("type", INT) == INT
        and values["bits"] == 2
        and not values.get("zero_point", True)
    ):
        return (
            "2 bits on a grid about 0 (-2 to 1 steps) made a model worse than guessing; set "
            "zero_point to true, or take 3 bits"
        )
    return None


# Keys that cards and reports have words of their own for.
WORDED = frozenset(
    (
        *("method", "type", "bits", "group_size", "zero_point", "rounding", "clip", "desc_act"),
        *("damp_percent", "transform", "smooth_attention", "prefix", "activations", "progressive"),
    )
)


def other_values(values: Mapping[str, Any]) -> list[str]:
    """'key: value' for what a recipe's values hold beyond WORDED and differs from its default."""
    defaults = {name: field.get_default() for name, field in Recipe.model_fields.items()}
    return [
        f"{name.replace('_', ' ')}: {value}"
        for name, value in values.items()
        if name not in WORDED and name in defaults and value != defaults[name]
    ]


def uses_gptq_rounding(recipe: Recipe) -> bool:
    """Whether GPTQ decides each weight's integer; otherwise it is the nearest."""
    return recipe.method == "gptq" or recipe.rounding == "gptq"


def needs_calibration(recipe: Recipe) -> bool:
    """Whether activations enter the quantization, or a check of it."""
    return (
        recipe.method != "rtn"
        or mixture(recipe) is not None
        or recipe.transform != NONE
        or recipe.smooth_attention
        or recipe.prefix != NONE
        or recipe.activations is not None
    )


def in_order_of_activation(recipe: Recipe) -> bool:
    """Whether groups are no runs of channels, so that their index must be stored."""
    return recipe.desc_act and recipe.group_size != WHOLE_ROW
