"""Running the tokens that all prompts share once, and reusing their keys and values."""

import copy
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class Prefix:
    """The tokens that all prompts begin with, and their KV cache for a batch of one."""

    length: int
    cache: Any  # transformers.DynamicCache, or None when nothing is shared

    def expanded(self, batch: int) -> Any:
        """Return a cache for `batch` sequences that may be written to, or None."""
        if self.cache is None:
            return None
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(batch)
        return cache


NOTHING = Prefix(0, None)


def run_prefix(model: Any, ids: list[int], longest: int) -> Prefix:
    """Run `ids` through the model; nothing is shared where that could change a result.

    `longest` is the length in tokens that the longest padded sequence may reach. Padding stands
    between prefix and rest, so it takes up room in a sliding window, and it would run through a
    recurrent state: sharing needs keys and values of all positions, in every layer.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if not ids or (window is not None and longest > window):
        return NOTHING
    cache = DynamicCache(config=config)
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        return NOTHING
    with torch.inference_mode():
        tokens = torch.tensor([ids], dtype=torch.long, device=model.device)
        mask = torch.ones_like(tokens)
        model(
            input_ids=tokens,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return Prefix(len(ids), cache)


def context_length(model: Any) -> int | None:
    """Return how many tokens the model can attend to, None where its config does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)
