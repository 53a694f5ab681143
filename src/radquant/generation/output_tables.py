"""The tables and counts that generation leaves behind."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from radquant.generation.transformers_engine import Output
from radquant.prompts import Prompt

# Stated because a shard may hold no report, and then nothing could be inferred.
OUTPUT_COLUMNS = {
    "id": "str",
    "prompt_hash": "str",
    "prompt_tokens": "int64",
    "truncated_tokens": "int64",
    "output": "str",
    "output_tokens": "int64",
    "finish_reason": "str",
}


def outputs_table(
    prompts: Sequence[Prompt], outputs: Sequence[Output], order: Mapping[str, int]
) -> pd.DataFrame:
    """Return one row per report, in the order of the evaluation file.

    `order` gives each id's place in that file.
    """
    rows = [
        (p.id, p.hash, p.length, p.truncated, o.text, o.tokens, o.finish)
        for p, o in zip(prompts, outputs, strict=True)
    ]
    rows.sort(key=lambda row: order[row[0]])
    return pd.DataFrame(rows, columns=list(OUTPUT_COLUMNS)).astype(OUTPUT_COLUMNS)


def output_counts(
    prompts: Sequence[Prompt], outputs: Sequence[Output], seconds: float
) -> dict[str, Any]:
    """Return the counts of a shard; tokens per second is None when nothing was written."""
    tokens = sum(output.tokens for output in outputs)
    return {
        "reports": len(prompts),
        "prompt_tokens": sum(prompt.length for prompt in prompts),
        "output_tokens": tokens,
        "tokens_per_second": tokens / seconds if tokens else None,
        "truncated_prompts": sum(prompt.truncated > 0 for prompt in prompts),
    }
