"""Reading outputs from generated tokens, and the table of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from radquant.failures import withheld_panics
from radquant.generation.tasks import Output
from radquant.prompts import THINKING, Prompt, remove_thinking

# The types are stated, as those of a shard without a report could not be inferred.
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


def read_output(tokenizer: Any, ids: list[int], ends: set[int], stop: Sequence[str]) -> Output:
    """Return the output in generated tokens `ids`, which padding may follow."""
    count = next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))
    finish = "stop" if ids[count - 1] in ends else "length"
    with withheld_panics():
        text = tokenizer.decode(without_thinking(tokenizer, ids[:count]), skip_special_tokens=True)
    cut = min((text.find(mark) for mark in stop if mark in text), default=-1)
    if cut >= 0:
        if finish == "length":
            count = _tokens_until_stop(tokenizer, ids, stop)
        text, finish = text[:cut], "stop"
    return Output(remove_thinking(text), count, finish)


def without_thinking(tokenizer: Any, ids: list[int]) -> list[int]:
    """The tokens without thinking between marks that a text would not show: special tokens."""
    for start, end in hidden_marks(tokenizer):
        while start in ids:
            begin = ids.index(start)
            behind = ids[begin:].index(end) + begin + 1 if end in ids[begin:] else len(ids)
            ids = ids[:begin] + ids[behind:]
        while end in ids:  # thinking that began in the prompt
            ids = ids[ids.index(end) + 1 :]
    return ids


def hidden_marks(tokenizer: Any) -> list[tuple[int, int]]:
    """The marks of thinking that a decoded text would not show, each a start and an end."""
    special = set(getattr(tokenizer, "all_special_tokens", ()))
    marks = [pair for pair in THINKING if special.issuperset(pair)]
    return [tuple(tokenizer.convert_tokens_to_ids(list(pair))) for pair in marks]


def _tokens_until_stop(tokenizer: Any, ids: list[int], stop: Sequence[str]) -> int:
    """Return how many tokens were generated until the stop string was whole."""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count], skip_special_tokens=True)
        if any(mark in text for mark in stop):
            return count
    return len(ids)
