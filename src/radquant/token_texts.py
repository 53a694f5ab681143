"""Texts as tokens and back, and what tokens a report must not be taken for."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from radquant.chat_templates import DATE, THINKING, frame_of, has_chat_template, place_of
from radquant.errors import UserError

Span = tuple[int, int]
# Added tokens that no vocabulary calls special and that no text holds by chance.
CONTROL = re.compile(r"<[|｜].*[|｜]>|</?tool_(call|response)>")
# Characters that tokenizers drop, or take for a space: white space, controls, format characters.
UNSEEN = re.compile(
    r"[\s\u2581\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]+"
)


def plain_ids(tokenizer: Any, text: str, reports: Sequence[Span] = ()) -> list[int]:
    """The tokens of `text` and no others.

    reports: where text of reports stands, from and to. What looks like a special token there is
    read letter by letter, because a report neither ends a turn nor begins one.
    """
    ids: list[int] = []
    begin = 0
    for end in (*_cuts(tokenizer, text, reports), len(text)):
        if end > begin:
            ids += tokenizer(text[begin:end], add_special_tokens=False)["input_ids"]
        begin = end
    return ids


def _cuts(tokenizer: Any, text: str, reports: Sequence[Span]) -> list[int]:
    """Where `text` is cut so that a report holds no special token: behind its first letter."""
    cuts = set()
    for token in control_tokens(tokenizer):
        if token not in text:
            continue
        for begin, end in reports:
            at = text.find(token, max(begin, 0), end)
            while at >= 0:
                cuts.add(at + 1)
                at = text.find(token, at + 1, end)
    return sorted(cuts)


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The texts that a tokenizer takes for something else than text."""
    return _control_tokens(tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _control_tokens(tokenizer: Any, size: int) -> tuple[str, ...]:
    marks = {mark for pair in THINKING for mark in pair}
    added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    found = {
        text
        for text, special in added.items()
        if special or text in marks or CONTROL.fullmatch(text)
    }
    return tuple(
        sorted(text for text in found | set(tokenizer.all_special_tokens) if len(text) > 1)
    )


def own_start(tokenizer: Any) -> list[int]:
    """The tokens that the tokenizer itself puts before a text: BOS, or none."""
    alone = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for start in range(len(whole) - len(alone) + 1):
        if alone and whole[start : start + len(alone)] == alone:
            return whole[:start]
    # If a tokenizer has no token for a letter, only what it adds is left.
    return [token for token in whole if token != tokenizer.eos_token_id]


def started_ids(tokenizer: Any, text: str, reports: Sequence[Span] = ()) -> list[int]:
    """As `plain_ids`, behind what the tokenizer itself puts before a text, once.

    An EOS that it would add at the end never belongs in a prompt.
    """
    ids, start = plain_ids(tokenizer, text, reports), own_start(tokenizer)
    return ids if start and ids[: len(start)] == start else start + ids


def prompt_ids(tokenizer: Any, text: str, reports: Sequence[Span] = ()) -> list[int]:
    """The tokens of a prompt that is complete: a chat template has written its own BOS."""
    make = plain_ids if has_chat_template(tokenizer) else started_ids
    return make(tokenizer, text, reports)


def end_marks(tokenizer: Any, date: str = DATE) -> tuple[list[int], tuple[str, ...]]:
    """What the chat template puts behind an answer: a token that ends it, or a text that does.

    Raises UserError for a text that an answer could hold.
    """
    if not has_chat_template(tokenizer):
        return [], ()
    after = frame_of(tokenizer, date).after.lstrip()
    ids = plain_ids(tokenizer, after)
    if not ids:
        return [], ()
    if ids[0] in set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder):
        return ids[:1], ()
    mark = after.split()[0]
    for token in control_tokens(tokenizer):
        mark = mark.partition(token)[0]
    if len(mark) < 3:
        raise UserError(
            f"the chat template of {place_of(tokenizer)} closes answers with {mark!r}, which is no "
            "token and may stand in an answer; take it out of chat_template.jinja"
        )
    return [], (mark,)


def end_token_ids(tokenizer: Any, generation_config: Any) -> list[int]:
    """Return every token that ends an answer: the model's, the tokenizer's, the chat turn's."""
    configured = getattr(generation_config, "eos_token_id", None)
    ends = list(configured) if isinstance(configured, list | tuple) else [configured]
    strange = [end for end in ends if end is not None and not isinstance(end, int)]
    if strange:
        raise UserError(
            f"{place_of(tokenizer)}: eos_token_id of generation_config.json or config.json is "
            f"{strange[0]!r}, which is no number of a token; write the number, or a list of numbers"
        )
    ends += [tokenizer.eos_token_id, *end_marks(tokenizer)[0]]
    return sorted({int(token) for token in ends if token is not None})


def endings(
    tokenizer: Any, generation_config: Any, vocabulary: int | None, date: str
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """What ends an answer: tokens that the model can write, and texts that the template writes."""
    ends = end_token_ids(tokenizer, generation_config)
    known = tuple(end for end in ends if end >= 0 and (vocabulary is None or end < vocabulary))
    return known, end_marks(tokenizer, date)[1]


def padding_id(tokenizer: Any, vocabulary: int) -> int:
    """A token to fill up with, which is masked: any that the model has an embedding of will do."""
    pad = tokenizer.pad_token_id
    return int(pad) if pad is not None and 0 <= pad < vocabulary else 0


# ---------------------------------------------------------------------------------- and back again


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def seen(text: str) -> str:
    """The text without what tokenizers may change: white space, case, forms of a character.

    Decomposed, because then two texts side by side do not melt into one character.
    """
    if text.isascii():
        return UNSEEN.sub("", text.lower())
    whole = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return UNSEEN.sub("", whole)


def lost_tokens(tokenizer: Any, ids: Sequence[int], text: str, wanted: Sequence[str]) -> int | None:
    """How many tokens of `text` say no more than that something unknown stood there.

    A vocabulary of words has such a token, and one of bytes never needs it. None if the tokens
    do not say each of the `wanted` texts, one behind the other, without such a token either.
    """
    unknown, mark = tokenizer.unk_token_id, tokenizer.unk_token
    count = 0 if unknown is None else list(ids).count(unknown) - text.count(mark)
    if count <= 0:
        return None if places_of(map(seen, wanted), seen(decoded(tokenizer, ids))) is None else 0
    runs: list[list[int]] = [[]]
    for token in ids:
        runs.append([]) if token == unknown else runs[-1].append(token)
    said = [seen(decoded(tokenizer, run)) for run in runs if run]
    start = seen(decoded(tokenizer, own_start(tokenizer)))
    return None if places_of(said, start + seen(text)) is None else count


def unknown_tokens(tokenizer: Any, text: str) -> int:
    """How many tokens of a text say that something unknown, which could be seen, stood there."""
    visible = UNSEEN.sub(" ", text)
    return plain_ids(tokenizer, visible, [(0, len(visible))]).count(tokenizer.unk_token_id)


def places_of(wanted: Iterable[str], text: str) -> list[int] | None:
    """Where each of the `wanted` begins in `text`, behind the one before; None if one does not."""
    places, at = [], 0
    for each in wanted:
        at = text.find(each, at)
        if at < 0:
            return None
        places.append(at)
        at += len(each)
    return places


def check_known(tokenizer: Any, ids: Sequence[int], vocabulary: int | None, what: str) -> None:
    """Raise UserError if one of the tokens is beyond the model's vocabulary.

    vocabulary: how many tokens it has; None if that is not known. what: what has the tokens.
    """
    beyond = [token for token in ids if vocabulary is not None and not 0 <= token < vocabulary]
    if not beyond:
        return
    added = tokenizer.added_tokens_decoder.get(beyond[0])
    name = f" ({added.content})" if added else ""
    raise UserError(
        f"{what} has the token {beyond[0]}{name}, and the model's vocabulary has {vocabulary}; the "
        f"tokenizer of {place_of(tokenizer)} is not the model's: put the model's own there"
    )
