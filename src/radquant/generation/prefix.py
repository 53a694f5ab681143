"""What all sequences begin with, as keys and values: a checkpoint's stored prefix, shared tokens.

A row of a batch is [stored prefix][shared tokens][padding][rest], and a cache of the first two is
copied for each batch. It is also what rounds keys and values, where a precision asks for that.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from math import inf
from typing import Any

import torch

from radquant.checkpoints.loading import Loaded
from radquant.errors import UserError
from radquant.families.lookup import family_of
from radquant.generation.rotary import switching_length
from radquant.prompts import Prompt
from radquant.runtime.runtime_file import behind_prefix
from radquant.settings.precision import DYNAMIC, TENSOR, Activations


@dataclass
class Prefix:
    """The tokens that all sequences begin with, and their KV cache for a batch of one."""

    length: int
    cache: Any  # transformers.DynamicCache, or None when nothing is shared or rounded

    def expanded(self, batch: int) -> Any:
        """Return a cache for `batch` sequences that may be written to, or None."""
        if self.cache is None:
            return None
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(batch)
        return cache


NOTHING = Prefix(0, None)
# What configurations call the number of places that a token sees, or that are seen together.
WINDOWS = (
    *("sliding_window", "sliding_window_size", "window_size", "attention_window_size"),
    *("attention_chunk_size", "local_attention"),
)


def begin(loaded: Loaded, longest: int) -> Prefix:
    """A cache that holds the checkpoint's stored prefix and rounds as the precision asks.

    longest: as in `run_prefix`. Raises UserError if padding would push a stored prefix out of a
    sliding window.
    """
    from radquant.runtime.kv_cache import new_cache, start_with

    stored, model = loaded.runtime.prefix, loaded.model
    if stored is None and loaded.kv_cache is None:
        return NOTHING
    config = model.config.get_text_config()
    check_switch(config, longest)
    runtime = loaded.runtime
    cache = new_cache(config, loaded.kv_cache, runtime.rotate_keys, runtime.cache_scales)
    if stored is None:
        return Prefix(0, cache)
    check_window(config, longest)
    if longest > longest_shared(model):
        raise UserError(
            f"in sequences of up to {longest} tokens this model would count the padding behind the "
            "checkpoint's stored prefix; use a checkpoint with prefix none"
        )
    keys, values = (
        [states.to(model.device, model.dtype) for states in kind]
        for kind in (stored.keys, stored.values)
    )
    start_with(cache, keys, values)
    return Prefix(len(stored.ids), cache)


def check_window(config: Any, longest: int) -> None:
    """Raise UserError if a stored prefix would fall out of the sliding window of a text model."""
    window = getattr(config, "sliding_window", None)
    if window is not None and longest > window:
        raise UserError(
            f"sequences of up to {longest} tokens push the checkpoint's stored prefix out of the "
            f"model's sliding window of {window}; use a checkpoint with prefix none"
        )


def check_switch(config: Any, longest: int) -> None:
    """Raise UserError if keys that are kept would be those of a shorter sequence."""
    switch = switching_length(config)
    if switch is not None and longest > switch:
        raise UserError(
            f"sequences of up to {longest} tokens exceed the {switch} from which on this model "
            "reads positions otherwise; use prefix none, no kv_cache, or shorter prompts"
        )


def behind_stored(prompts: Sequence[Prompt], stored: Sequence[int]) -> list[Prompt]:
    """The prompts behind the checkpoint's stored prefix, which does not count as theirs."""
    if not stored:
        return list(prompts)
    placed = []
    for prompt in prompts:
        ids = behind_prefix(stored, prompt.ids)
        more = len(ids) - len(prompt.ids)
        types = (0,) * more + prompt.types if prompt.types else ()
        placed.append(replace(prompt, ids=ids, stored=more, types=types))
    return placed


def stored_ids(loaded: Loaded) -> tuple[int, ...]:
    """The checkpoint's stored prefix, which takes up room in the model's context."""
    return tuple(loaded.runtime.prefix.ids) if loaded.runtime.prefix else ()


def may_share(activations: Activations | None) -> bool:
    """Whether the tokens that prompts share can be run once for all.

    Not if a scale is taken over a whole prompt: it cannot be cut in two.
    """
    return activations is None or (activations.granularity, activations.range) != (TENSOR, DYNAMIC)


def longest_shared(model: Any) -> float:
    """The longest sequence, in tokens, in which padding may stand between prefix and rest.

    A model that is not told positions may count the padding, as MPT's ALiBi does, and so may one
    that makes them of its images.
    """
    if "position_ids" not in signature(model.forward).parameters or makes_positions(model):
        return 0
    config = model.config.get_text_config()
    limits = [getattr(config, name, None) for name in WINDOWS]
    return min((each for each in (*limits, switching_length(config)) if each), default=inf)


def makes_positions(model: Any) -> bool:
    """Whether a model makes the positions of tokens itself, of the grids of its images."""
    shown = family_of(model.config.model_type).images
    return shown is not None and shown.positions


def run_prefix(model: Any, ids: list[int], longest: int, start: Prefix = NOTHING) -> Prefix:
    """Run `ids`, which begin with those of `start`; nothing is shared where that could change a
    result.

    `longest` is the length in tokens that the longest padded sequence may reach. Padding stands
    between prefix and rest, so it takes up room in a sliding window, and it would run through a
    recurrent state. So sharing needs keys and values of all positions, in every layer. Nor are keys
    shared that are others in a longer sequence.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    from radquant.runtime.kv_cache import RoundedLayer, RoundedSlidingLayer

    config = model.config.get_text_config()
    if len(ids) <= start.length or longest > longest_shared(model):
        return start
    cache = DynamicCache(config=config) if start.cache is None else copy.deepcopy(start.cache)
    plain = (DynamicLayer, DynamicSlidingWindowLayer, RoundedLayer, RoundedSlidingLayer)
    if any(type(layer) not in plain for layer in cache.layers):
        return start
    with torch.inference_mode():
        tokens = torch.tensor([ids], dtype=torch.long, device=model.device)
        mask = torch.ones_like(tokens)
        model(
            input_ids=tokens[:, start.length :],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return Prefix(len(ids), cache)


def context_length(model: Any) -> int | None:
    """Return how many tokens the model can attend to, None where its config does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)
