"""The parts of a model that is shown images: one that reads and writes, and one that sees.

The language model and its head are one part. All else (towers, projectors) is the other, and makes
of an image what the language model reads in the place of its tokens.
"""

from collections.abc import Callable
from typing import Any

from torch import nn


def is_language(model: Any) -> Callable[[str], bool]:
    """Tells, by its name in `model`, whether a tensor belongs to the language model or its head."""
    names = {module: name for name, module in model.named_modules()}
    parts = [model.get_decoder(), model.get_output_embeddings()]
    prefixes = tuple(f"{names[part]}." for part in parts if part in names)
    return lambda name: name.startswith(prefixes)


def is_vision(model: Any) -> Callable[[str], bool]:
    """The same of the part that sees."""
    language = is_language(model)
    return lambda name: not language(name)


def beside_language(model: Any) -> tuple[nn.Module, dict[str, nn.Module]]:
    """The module that holds the language model, and what else it holds, by name: what sees."""
    names = {module: name for name, module in model.named_modules()}
    decoder = model.get_decoder()
    base = model.get_submodule(names[decoder].rpartition(".")[0])
    return base, {name: each for name, each in base.named_children() if each is not decoder}


def without_vision(model: Any) -> None:
    """Take out of a model what sees, whose parameters may be on the meta device."""
    base, seeing = beside_language(model)
    for name in seeing:
        setattr(base, name, nn.Module())
    for name, _ in list(base.named_parameters(recurse=False)):
        setattr(base, name, None)


def vision_to(model: Any, device: Any) -> None:
    """Move what sees; the language model, which may be on the meta device, stays."""
    base, seeing = beside_language(model)
    for each in seeing.values():
        each.to(device)
    for name, own in list(base.named_parameters(recurse=False)):
        setattr(base, name, nn.Parameter(own.to(device), requires_grad=False))
