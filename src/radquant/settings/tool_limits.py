"""What the other packages that can quantize, `tool` in a configuration, cannot do.

Nothing here needs PyTorch or the tools, so that a configuration is checked before any work starts.
"""

from radquant.errors import UserError
from radquant.settings.precision import FP8, INT, STATIC, TENSOR, TOKEN, Activations
from radquant.settings.recipe import NONE, WHOLE_ROW, Recipe, mixture

NAMES = {"autoawq": "AutoAWQ", "gptqmodel": "GPTQModel", "llmcompressor": "llm-compressor"}
METHODS: dict[str, tuple[str, ...]] = {
    "autoawq": ("awq",),
    "gptqmodel": ("gptq",),
    "llmcompressor": ("awq", "gptq", "rtn"),
}
FORMATS = {"autoawq": "gemm", "gptqmodel": "gptq", "llmcompressor": "compressed-tensors"}


def check_tool_recipe(tool: str, recipe: Recipe, form: str | None = None) -> None:
    """Raise UserError if `tool` has no such recipe, or does not store it in the format `form`."""
    name, methods = NAMES[tool], METHODS[tool]
    for wrong, what in (
        (recipe.method not in methods, f"method {recipe.method}; use {' or '.join(methods)}"),
        (form not in (None, FORMATS[tool]), f"format {form}; leave format out"),
        (mixture(recipe) is not None, "bits that differ between layers; give bits a number"),
        (recipe.progressive, "progressive scales; leave progressive out"),
        (recipe.transform != NONE, f"transform {recipe.transform}; leave transform out"),
        (recipe.smooth_attention, "smooth_attention; leave it out"),
        (recipe.prefix != NONE, f"prefix {recipe.prefix}; leave prefix out"),
        *(llmcompressor_lacks(recipe) if tool == "llmcompressor" else weights_alone(recipe)),
        *(autoawq_lacks(recipe) if tool == "autoawq" else ()),
    ):
        if wrong:
            raise UserError(f"{name} cannot do {what}, or leave tool out to let radquant do it")


def weights_alone(recipe: Recipe) -> tuple[tuple[bool, str], ...]:
    return (
        (recipe.type != INT, f"type {recipe.type}; leave type out"),
        (recipe.activations is not None, "weights fitted to activations; leave activations out"),
    )


def llmcompressor_lacks(recipe: Recipe) -> tuple[tuple[bool, str], ...]:
    """What is not asked of it here; it can do more."""
    inputs, kind = recipe.activations, recipe.type
    return (
        (kind not in (INT, FP8), f"type {kind}; use int or fp8"),
        (kind == FP8 and recipe.method != "rtn", f"type fp8 by {recipe.method}; use method rtn"),
        (recipe.bits not in (4, 8), f"{recipe.bits} bits; use 4 or 8"),
        (recipe.desc_act, "groups in order of activation; leave desc_act out"),
        (
            inputs is not None and not llmcompressor_rounds(inputs, kind),
            f"such activations; use type {kind} of 8 bits, granularity token"
            + ", or granularity tensor and range static" * (kind == FP8),
        ),
    )


def llmcompressor_rounds(inputs: Activations, kind: str) -> bool:
    plain = inputs.symmetric and not inputs.skip and inputs.clip_ratio == 1 and inputs.bits == 8
    by_token = inputs.granularity == TOKEN
    fixed = kind == FP8 and inputs.granularity == TENSOR and inputs.range == STATIC
    return plain and inputs.type == kind and (by_token or fixed)


def autoawq_lacks(recipe: Recipe) -> tuple[tuple[bool, str], ...]:
    return (
        (recipe.bits != 4, f"{recipe.bits} bits; use 4"),
        (recipe.group_size == WHOLE_ROW, "group size -1; use 32, 64 or 128"),
        (not recipe.zero_point, "a grid without zero points; set zero_point to true"),
        (recipe.rounding != "nearest", f"rounding {recipe.rounding}; leave rounding out"),
        (not recipe.clip, "without clipping; set clip to true"),
    )
