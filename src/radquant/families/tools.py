"""Which models the other packages that can quantize, `tool` in a configuration, take.

Their own lists are longer. AutoAWQ's names some that fail with this release of transformers.
"""

from radquant.errors import UserError
from radquant.families.lookup import family_of, model_types
from radquant.settings.tool_limits import NAMES


def check_model_type(tool: str, kind: str | None, model: str) -> None:
    """Raise UserError if `tool` cannot quantize models of type `kind`, such as the one in `model`.

    kind: `model_type` in the model's config.json.
    """
    if tool not in family_of(kind).tools:
        tried = ", ".join(model_types(lambda family: tool in family.tools))
        raise UserError(
            f"{NAMES[tool]} cannot quantize {model}, a model of type {kind}; it can "
            f"{tried}; leave tool out to let radquant do it"
        )
