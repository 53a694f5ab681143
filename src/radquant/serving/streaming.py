"""The part of an answer that no later token can change, so that it can be sent already."""

from collections.abc import Sequence
from typing import Any

from radquant.chat_templates import THINKING
from radquant.failures import withheld_panics
from radquant.generation.outputs import without_thinking
from radquant.prompts import remove_thinking

PIECE = "\ufffd"  # what is decoded of a part of a character
CLEANED = 6  # characters that a tokenizer's cleaning of spaces may still change behind them


def settled(tokenizer: Any, prompt: Sequence[int], ids: list[int], stop: Sequence[str]) -> str:
    """What of the text of `ids`, which has not ended, is sure to begin the whole answer.

    It is the beginning of what `outputs.read_output` makes of any tokens that `ids` begin. Only a
    model that spells the end of thinking, for which it has no token, can break that.
    """
    if may_think(tokenizer, prompt, ids):
        return ""
    with withheld_panics():
        text = tokenizer.decode(without_thinking(tokenizer, ids), skip_special_tokens=True)
    text = text.rstrip(PIECE)
    if getattr(tokenizer, "clean_up_tokenization_spaces", False):
        text = text[:-CLEANED]
    marks = [mark for pair in THINKING for mark in pair]
    return remove_thinking(held_back(text, (*stop, *marks)))


def held_back(text: str, marks: Sequence[str]) -> str:
    """The text without what is part of a character, or of a mark, once more is written."""
    text = text.rstrip(PIECE)
    return text[: len(text) - max((begun(text, mark) for mark in marks), default=0)]


def begun(text: str, mark: str) -> int:
    """How many characters at the end of `text` are the beginning of `mark`, at most."""
    most = min(len(text), len(mark) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(mark[:n])), 0)


def may_think(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int]) -> bool:
    """Whether what is written so far may turn out to be thinking, which is no part of an answer.

    So it is for a model that has tokens for thinking, until one has ended it, be it in the prompt.
    """
    pairs = [tuple(tokenizer.convert_tokens_to_ids(list(pair))) for pair in THINKING]
    unknown = tokenizer.unk_token_id
    known = [(start, end) for start, end in pairs if not {start, end} & {None, unknown}]
    return bool(known) and not any(token == end for token in (*prompt, *ids) for _, end in known)
