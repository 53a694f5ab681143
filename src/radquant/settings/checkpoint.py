"""A checkpoint that is made by a recipe: who carries it out, and the layout that it is stored in.

Nothing here needs PyTorch, as in `recipe`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from radquant import registry
from radquant.errors import UserError
from radquant.settings.recipe import Recipe, mixture, widths
from radquant.settings.section import OneOf

# Who can carry out a recipe. Each other package has a script and an environment of its name.
OWN = "radquant"
OTHER_PACKAGES = ("autoawq", "gptqmodel", "llmcompressor")


class Checkpoint(Recipe):
    """A recipe, who carries it out, and the layout that the weights are stored in."""

    tool: Annotated[str, OneOf((OWN, *OTHER_PACKAGES))] = Field(
        OWN,
        description="Who does it; another package (docs/tools.md) works in an environment of its "
        "own",
    )
    format: Annotated[str | None, OneOf(registry.STORED_FORMATS, after=(None,))] = Field(
        None,
        description="Layout of the packed tensors. If null, it is gguf or compressed-tensors by "
        "type. For integers it is qoq if they are progressive, else gemm for awq and "
        "rtn (compressed-tensors for an average of bits) and gptq for gptq",
    )

    @property
    def recipe(self) -> Recipe:
        return Recipe(**{name: getattr(self, name) for name in Recipe.model_fields})

    @property
    def weight_files(self) -> tuple[str, ...]:
        """The files of a finished checkpoint that hold its weights."""
        form = registry.load_kind(registry.STORED_FORMATS, format_name(self, self.format))
        return (getattr(form, "FILE", "model.safetensors"),)


def format_name(recipe: Recipe, asked: str | None = None) -> str:
    """The format to store `recipe` in: the one asked for, or else the one its method is known by.

    Raises UserError if the format cannot hold the recipe.
    """
    formats = {
        name: registry.load_kind(registry.STORED_FORMATS, name) for name in registry.STORED_FORMATS
    }
    if asked is not None and asked not in formats:
        raise UserError(f"there is no format {asked!r}; use one of {', '.join(formats)}")
    of_type = [name for name, form in formats.items() if recipe.type in form.TYPES]
    if not of_type:
        raise UserError(f"no format can hold type {recipe.type}")
    if asked is None:
        asked = next(name for name in of_type if formats[name].usual_for(recipe))
    if asked not in of_type:
        raise UserError(
            f"format {asked} cannot hold type {recipe.type}; use {' or '.join(of_type)}, or leave "
            "format out"
        )
    if mixture(recipe) is not None:
        check_mixture_format(recipe, asked, formats)
    elif recipe.bits not in formats[asked].BITS:
        able = [name for name, form in formats.items() if recipe.bits in form.BITS]
        raise UserError(
            f"format {asked} cannot hold {recipe.bits} bits; use {' or '.join(able)} for them"
        )
    problem = formats[asked].problem(recipe)
    if problem:
        raise UserError(problem)
    return asked


def check_mixture_format(recipe: Recipe, asked: str, formats: Mapping[str, Any]) -> None:
    """Refuse a format that says bits once for all layers, or holds too many for the average."""
    mixed = mixture(recipe)
    assert mixed is not None
    able = [name for name, form in formats.items() if hasattr(form, "mixed_config")]
    if asked not in able:
        raise UserError(
            f"format {asked} cannot hold bits that differ between layers; use {' or '.join(able)}, "
            "or leave format out"
        )
    least = min(widths(recipe, formats[asked].BITS))
    if mixed.average < least:
        raise UserError(
            f"layers of format {asked} have at least {least} bits, and the average is to be "
            f"{mixed.average:g}; use format gptq, or at least {least}"
        )
