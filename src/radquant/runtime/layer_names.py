"""Which linear layers' inputs are rounded, by the layers' names."""

from collections.abc import Iterable

from radquant.errors import UserError
from radquant.settings.precision import Activations


def quantized_layers(names: list[str], settings: Activations) -> list[str]:
    """Those of the linear layers whose input is quantized: all but the skipped ones.

    Raises UserError for a skipped name that no layer ends in: it would be a misspelling.
    """
    for skipped in settings.skip:
        if not any(ends_in(name, [skipped]) for name in names):
            raise UserError(
                f"activations: skip names {skipped!r}, which no packed layer's name ends in; "
                f"one of them is {names[0]}"
            )
    return [name for name in names if not ends_in(name, settings.skip)]


def ends_in(name: str, ends: Iterable[str]) -> bool:
    """Whether a layer's full name ends in one of `ends`, in whole parts between dots."""
    return any(f".{name}".endswith(f".{end}") for end in ends)
