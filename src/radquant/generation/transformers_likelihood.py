"""Teacher-forced negative log-likelihood of the reference answers, by Hugging Face's code."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from radquant.cli import progress
from radquant.generation.batching import pad_left
from radquant.generation.prefix import (
    NOTHING,
    Prefix,
    begin,
    makes_positions,
    run_prefix,
    stored_ids,
)
from radquant.generation.rotary import each_apart
from radquant.generation.tasks import Task, Work
from radquant.generation.vision import model_inputs
from radquant.prompts import Prompt
from radquant.token_texts import padding_id
from radquant.vision.features import Features


def answer_nll(
    model: Any,
    prompts: Sequence[Prompt],
    pad_id: int,
    prefix: Prefix = NOTHING,
    features: Features | None = None,
) -> list[float]:
    """Return for each prompt of a batch −log p(answer | prompt), in nats, summed over its tokens.

    The token that ends the answer is not scored: what is asked is how likely the text is. Logits
    are computed where the answers are only; rows end together, so these are the last positions.
    """
    device = torch.device(model.device)
    sequences = [prompt.ids + prompt.answer_ids for prompt in prompts]
    ids, mask = pad_left(sequences, prefix.length, pad_id, device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    longest = max(len(prompt.answer_ids) for prompt in prompts)
    by_itself = makes_positions(model) and any(prompt.images for prompt in prompts)
    seen = model_inputs(features, prompts, list(map(len, sequences)), prefix.length, model)
    with torch.inference_mode():
        logits = model(
            input_ids=ids[:, prefix.length :],
            attention_mask=mask,
            position_ids=None if by_itself else positions[:, prefix.length :],
            past_key_values=prefix.expanded(len(prompts)),
            use_cache=prefix.cache is not None,
            logits_to_keep=longest + 1,
            **seen,
        ).logits  # [B, longest + 1, V]; position i holds the scores of token i + 1
        return [
            _row_nll(logits[row], ids[row], len(prompt.answer_ids))
            for row, prompt in enumerate(prompts)
        ]


def score(loaded: Any, task: Task) -> Work:
    """The nats of every answer by the model of `loaded`."""
    model = loaded.model
    prefix = run_prefix(model, task.shared, task.longest, begin(loaded, task.longest))
    pad = padding_id(loaded.tokenizer, model.config.get_text_config().vocab_size)
    found: list[float] = []
    seconds: list[float] = []
    too_large: list[int] = []

    def nats(part: Sequence[Prompt]) -> list[float]:
        return answer_nll(loaded.model, part, pad, prefix, task.features)

    for batch in progress(task.batches, task.label, len(task.batches), "batches"):
        started = time.perf_counter()
        scored = 1 + max(len(prompt.answer_ids) for prompt in batch)
        found += each_apart(model, nats, batch, lengths(batch), too_large, scored)
        seconds.append(time.perf_counter() - started)
    return Work(found, seconds, too_large, prefix.length - len(stored_ids(loaded)))


def lengths(prompts: Sequence[Prompt]) -> list[int]:
    return [len(prompt.ids) + len(prompt.answer_ids) for prompt in prompts]


def _row_nll(logits: torch.Tensor, ids: torch.Tensor, count: int) -> float:
    if count == 0:
        return 0.0
    # One row at a time: a float32 copy of the whole batch's scores may not fit.
    scores = logits[-count - 1 : -1].float().log_softmax(-1)
    chosen = scores.gather(-1, ids[-count:, None])
    return -float(chosen.double().sum())
