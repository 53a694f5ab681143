"""The texts on which a checkpoint is calibrated: training prompts with their references."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from radquant import prompts
from radquant.errors import UserError


@dataclass(frozen=True)
class Sample:
    """One calibration text as it is fed to the model, cut at the largest number of tokens."""

    id: str
    text: str
    ids: list[int]
    cut: int  # tokens dropped at the end


def draw(
    tokenizer: Any,
    train: Sequence[prompts.Row],
    template: str,
    target: str,
    count: int,
    max_tokens: int,
    seed: int,
) -> list[Sample]:
    """Draw `count` training reports by seed; each is the prompt followed by its reference.

    Raises UserError when there are fewer reports with text in every column that is used.
    """
    if count < 1 or max_tokens < 1:
        raise UserError(
            f"{count} calibration samples of {max_tokens} tokens were asked for; both must be at "
            "least 1"
        )
    columns = [*prompts.columns_of(template), target]
    usable = [row for row in train if all(str(row[name]).strip() for name in columns)]
    if len(usable) < count:
        raise UserError(
            f"{count} calibration samples were asked for but the training split has only "
            f"{len(usable)} reports with {', '.join(columns)}; ask for fewer or add reports"
        )
    drawn = prompts.seeded_order(usable, seed, "calibration")[:count]
    return [_sample(tokenizer, row, template, target, max_tokens) for row in drawn]


def _sample(
    tokenizer: Any, row: prompts.Row, template: str, target: str, max_tokens: int
) -> Sample:
    prompt = prompts.chat_prompt(tokenizer, template, row, [], target, with_answer=True)
    ids = prompt.ids + prompt.answer_ids
    kept = ids[:max_tokens]
    text = prompt.text + prompt.lead + str(row[target])
    if len(ids) > max_tokens:
        text = tokenizer.decode(kept)
    return Sample(str(row["id"]), text, kept, len(ids) - len(kept))


def record(
    samples: Sequence[Sample], template_hash: str, max_tokens: int, seed: int
) -> dict[str, Any]:
    """Return what set.json says about the samples."""
    return {
        "samples": len(samples),
        "tokens": sum(len(sample.ids) for sample in samples),
        "max_tokens": max_tokens,
        "seed": seed,
        "prompt_hash": template_hash,
        "truncated": sum(sample.cut > 0 for sample in samples),
        "truncated_tokens": sum(sample.cut for sample in samples),
    }


def table(samples: Sequence[Sample]) -> pd.DataFrame:
    """Return the samples as columns id, text, tokens and input_ids (lists of int32)."""
    return pd.DataFrame(
        {
            "id": [sample.id for sample in samples],
            "text": [sample.text for sample in samples],
            "tokens": [len(sample.ids) for sample in samples],
            "input_ids": [np.asarray(sample.ids, dtype=np.int32) for sample in samples],
        }
    )
