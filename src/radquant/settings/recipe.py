"""How the weights of a checkpoint are quantized: the values of a recipe, and which go together.

Nothing here needs PyTorch, so that a configuration is checked before anything heavy is imported.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from radquant import registry
from radquant.errors import UserError
from radquant.settings.precision import Activations, activations_of, as_values

METHODS = ("awq", "gptq", "rtn")
ROUNDINGS = ("nearest", "gptq")
NONE, SMOOTH, HADAMARD, AUTO = "none", "smooth", "hadamard", "auto"
TRANSFORMS = (NONE, SMOOTH, HADAMARD)
PREFIXES = (NONE, AUTO)
BITS = (2, 3, 4, 8)
WHOLE_ROW = -1  # the group size that stands for one group a row, "per channel"
GROUP_SIZES = (32, 64, 128, WHOLE_ROW)


@dataclass(frozen=True)
class Recipe:
    """How the weights of a checkpoint are quantized."""

    method: str  # "awq", "gptq" or "rtn" (plain rounding to nearest)
    bits: int  # 2, 3, 4 or 8; 2 not with "awq"
    group_size: int  # 32, 64, 128, or -1: one group for the whole row
    zero_point: bool = True  # False: the grid is symmetric about 0
    rounding: str = "nearest"  # "gptq": AWQ's scales and clipping, GPTQ's rounding
    clip: bool = True  # "awq", "gptq": search ranges, too; False stops at the scale
    desc_act: bool = False  # "gptq": form the groups in order of activation
    damp_percent: float = 0.01  # GPTQ's rounding: share of H's mean diagonal that is added to it
    transform: str = NONE  # what is done to the model before, which leaves its function unchanged
    smooth_attention: bool = False  # move outlying key channels to the queries (QoQ)
    prefix: str = NONE  # "auto": store the keys and values of outlying tokens before every text
    activations: Activations | None = None  # the rounding of activations that weights are fitted to
    progressive: bool = False  # QoQ: group scales are whole multiples of an INT8 channel scale


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """The recipe of a checkpoint in the configuration, every default filled in."""
    known = {field.name: values[field.name] for field in fields(Recipe) if field.name in values}
    if values["method"] == "gptq":
        known["rounding"] = "gptq"
    known["activations"] = activations_of(values.get("activations"))
    return Recipe(**known)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, for JSON."""
    return {**asdict(recipe), "activations": as_values(recipe.activations)}


def uses_gptq_rounding(recipe: Recipe) -> bool:
    """Whether GPTQ decides each weight's integer; otherwise it is the nearest."""
    return recipe.method == "gptq" or recipe.rounding == "gptq"


def needs_calibration(recipe: Recipe) -> bool:
    """Whether activations enter the quantization, or a check of it."""
    return (
        recipe.method != "rtn"
        or recipe.transform != NONE
        or recipe.smooth_attention
        or recipe.prefix != NONE
        or recipe.activations is not None
    )


def check_recipe_values(recipe: Recipe) -> None:
    """Raise UserError if a value is unknown or two values exclude each other."""
    for name, known in (
        ("method", METHODS),
        ("bits", BITS),
        ("group_size", GROUP_SIZES),
        ("rounding", ROUNDINGS),
        ("transform", TRANSFORMS),
        ("prefix", PREFIXES),
    ):
        value = getattr(recipe, name)
        if value not in known:
            raise UserError(f"{name} {value!r} is unknown; use one of {known}")
    if recipe.method == "awq" and recipe.bits == 2:
        raise UserError("method awq cannot do 2 bits; use 3, 4 or 8 bits, or method gptq")
    if recipe.method == "rtn" and recipe.rounding == "gptq":
        raise UserError(
            "rounding gptq needs calibration, which method rtn has not; use awq or gptq"
        )
    if recipe.desc_act and recipe.method != "gptq":
        raise UserError(f"desc_act does not go with method {recipe.method}; use method gptq")
    if recipe.method == "awq" and recipe.transform == SMOOTH:
        raise UserError(
            "transform smooth does not go with method awq, which scales inputs itself and knows "
            "their rounding if activations are given; leave it out, or use rtn or gptq"
        )
    if recipe.progressive:
        check_progressive(recipe)
    if not 0 < recipe.damp_percent < 1:
        raise UserError(
            f"damp_percent {recipe.damp_percent} is not between 0 and 1; it is a share of the mean "
            "diagonal, usually 0.01"
        )


def check_progressive(recipe: Recipe) -> None:
    """Raise UserError if progressive quantization does not go with the recipe's other values."""
    for wrong, what in (
        (recipe.bits != 4, f"{recipe.bits} bits; use 4"),
        (recipe.group_size == WHOLE_ROW, "group size -1; use 32, 64 or 128"),
        (not recipe.zero_point, "a grid without zero points; set zero_point to true"),
        (recipe.desc_act, "desc_act; leave it out"),
    ):
        if wrong:
            raise UserError(f"progressive does not go with {what}")


def in_order_of_activation(recipe: Recipe) -> bool:
    """Whether groups are no runs of channels, so that their index must be stored."""
    return recipe.desc_act and recipe.group_size != WHOLE_ROW


def format_name(recipe: Recipe, asked: str | None = None) -> str:
    """The format to store `recipe` in: the one asked for, or else the one its method is known by.

    Raises UserError if the format cannot hold the recipe.
    """
    formats = {
        name: registry.load_kind(registry.STORED_FORMATS, name) for name in registry.STORED_FORMATS
    }
    if asked is None:
        asked = next(name for name, form in formats.items() if form.usual_for(recipe))
    if asked not in formats:
        raise UserError(f"there is no format {asked!r}; use one of {', '.join(formats)}")
    if recipe.bits not in formats[asked].BITS:
        able = [name for name, form in formats.items() if recipe.bits in form.BITS]
        raise UserError(
            f"format {asked} cannot hold {recipe.bits} bits; use {' or '.join(able)} for them"
        )
    problem = formats[asked].problem(recipe)
    if problem:
        raise UserError(problem)
    return asked
