"""Positions that are read otherwise in long sequences: "longrope" (Phi) and "dynamic" NTK scaling.

There a token's keys depend on how long the whole sequence is, and in a batch on the longest one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from radquant.generation.memory import in_parts, rows_that_fit
from radquant.prompts import Prompt

T = TypeVar("T")


def switching_length(config: Any) -> int | None:
    """The longest sequence whose keys are those of any shorter one; None if all are.

    config: of the text model.
    """
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, Mapping):
        return None
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    found = [_switch(config, each) for each in nested or [parameters]]
    return min((each for each in found if each is not None), default=None)


def _switch(config: Any, parameters: Mapping[str, Any]) -> int | None:
    kind = parameters.get("rope_type") or "default"
    if kind != "longrope" and "dynamic" not in kind:
        return None
    original = parameters.get("original_max_position_embeddings") if kind == "longrope" else None
    return int(original or config.max_position_embeddings)


def each_apart(
    model: Any,
    do: Callable[[Sequence[Prompt]], list[T]],
    batch: Sequence[Prompt],
    lengths: Sequence[int],
    too_large: list[int],
    scored: int = 1,
) -> list[T]:
    """What `do` makes of each prompt of a batch; prompts that would change others go alone.

    lengths: tokens of each sequence at its end. too_large: as in `memory.in_parts`. scored:
    positions of each whose scores are computed at once.
    """
    import torch

    longest, device = max(lengths, default=0), torch.device(model.device)
    most = rows_that_fit(model.config, longest, scored, len(batch), model.dtype, device)
    switch = switching_length(model.config.get_text_config())
    places = range(len(batch))
    alone = [place for place in places if switch is not None and lengths[place] > switch]
    together = [place for place in places if place not in alone]
    found: dict[int, T] = {}
    for group in [together] * bool(together) + [[place] for place in alone]:
        if switch is not None:
            forget_longer(model)
        done = in_parts(do, [batch[place] for place in group], too_large, most)
        found.update(zip(group, done, strict=True))
    return [found[place] for place in places]


def forget_longer(model: Any) -> None:
    """Let frequencies be those of short sequences: transformers keeps those of the longest yet."""
    import torch

    place = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    like = torch.zeros(1, device=model.device)
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        if isinstance(kinds, str) and "dynamic" in kinds:
            module(like, place)
        elif isinstance(kinds, Mapping):
            for layer_type, kind in kinds.items():
                if "dynamic" in kind:
                    module(like, place, layer_type)
