"""What the other packages that can quantize, `tool` in a configuration, cannot do.

Nothing here needs PyTorch or the tools, so that a configuration is checked before any work starts.
"""

from radquant.errors import UserError
from radquant.settings.recipe import NONE, WHOLE_ROW, Recipe

NAMES = {"autoawq": "AutoAWQ", "gptqmodel": "GPTQModel"}
METHODS = {"autoawq": "awq", "gptqmodel": "gptq"}
FORMATS = {"autoawq": "gemm", "gptqmodel": "gptq"}


def check_tool_recipe(tool: str, recipe: Recipe, form: str | None = None) -> None:
    """Raise UserError if `tool` has no such recipe, or does not store it in the format `form`."""
    name, method = NAMES[tool], METHODS[tool]
    for wrong, what in (
        (recipe.method != method, f"method {recipe.method}; use {method}"),
        (form not in (None, FORMATS[tool]), f"format {form}; leave format out"),
        (recipe.progressive, "progressive scales; leave progressive out"),
        (recipe.transform != NONE, f"transform {recipe.transform}; leave transform out"),
        (recipe.smooth_attention, "smooth_attention; leave it out"),
        (recipe.prefix != NONE, f"prefix {recipe.prefix}; leave prefix out"),
        (recipe.activations is not None, "weights fitted to activations; leave activations out"),
        *(autoawq_lacks(recipe) if tool == "autoawq" else ()),
    ):
        if wrong:
            raise UserError(f"{name} cannot do {what}, or leave tool out to let radquant do it")


def autoawq_lacks(recipe: Recipe) -> tuple[tuple[bool, str], ...]:
    return (
        (recipe.bits != 4, f"{recipe.bits} bits; use 4"),
        (recipe.group_size == WHOLE_ROW, "group size -1; use 32, 64 or 128"),
        (not recipe.zero_point, "a grid without zero points; set zero_point to true"),
        (recipe.rounding != "nearest", f"rounding {recipe.rounding}; leave rounding out"),
        (not recipe.clip, "without clipping; set clip to true"),
    )
