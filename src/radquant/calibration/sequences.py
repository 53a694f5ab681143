"""The sequences on which a checkpoint is calibrated: training reports, or texts from elsewhere."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radquant import prompts
from radquant.errors import UserError
from radquant.image_files import (
    COLUMN,
    HASHES,
    SEPARATOR,
    TYPES,
    WEIGHT,
    ImageFile,
    image_files,
    image_names,
)


@dataclass(frozen=True)
class Whole:
    """One text as a sequence, before it is cut."""

    text: str
    ids: list[int]
    images: tuple[ImageFile, ...] = ()  # in the order of their tokens
    names: str = ""  # of these files, as the corpus has them
    types: tuple[int, ...] = ()  # 1 for each of `ids` that is an image's, else 0; () without images


@dataclass(frozen=True)
class Sample:
    """One sequence as it is fed to the model."""

    sources: tuple[str, ...]  # ids of the texts in it; one, unless it is packed
    text: str
    ids: list[int]
    cut: int  # tokens dropped at the end
    images: tuple[ImageFile, ...] = ()
    names: str = ""
    types: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        return " + ".join(self.sources)


@dataclass(frozen=True)
class Shown:
    """How reports are shown with their images."""

    processor: Any  # the model's own
    root: Path  # folder of the image files


@dataclass(frozen=True)
class Source:
    """Rows with text, and how one becomes a text and its tokens, whole."""

    tokenizer: Any
    rows: Sequence[prompts.Row]
    read: Callable[[prompts.Row], Whole]
    place: str  # where they are and what they are, for errors
    unit: str

    @property
    def has(self) -> str:
        return f"{self.place} has only {len(self.rows)} {self.unit}"


def reports(
    tokenizer: Any,
    train: Sequence[prompts.Row],
    template: str,
    target: str,
    date: str = prompts.DATE,
    shown: Shown | None = None,
) -> Source:
    """Return the training reports with text in every column used: each the prompt, as the model
    will see it on `date`, followed by its reference. shown: how its images are shown before it;
    None for text alone."""

    def read(row: prompts.Row) -> Whole:
        images = image_files(row, COLUMN, shown.root) if shown else ()
        prompt = prompts.chat_prompt(
            *(tokenizer, template, row, [], target),
            with_answer=True,
            images=images,
            processor=shown and shown.processor,
            date=date,
        )
        types = (*prompt.types, *(0 for _ in prompt.answer_ids)) if images else ()
        text = prompt.text + prompt.lead + str(row[target])
        names = SEPARATOR.join(image_names(str(row[COLUMN]))) if images else ""
        return Whole(text, prompt.ids + prompt.answer_ids, images, names, types)

    columns = [*prompts.columns_of(template), target, *([COLUMN] if shown else [])]
    usable = [row for row in train if all(str(row[name]).strip() for name in columns)]
    unit = f"reports with {', '.join(columns)}"
    return Source(tokenizer, usable, read, "the training split", unit)


def plain_texts(tokenizer: Any, rows: Sequence[prompts.Row], name: str) -> Source:
    """Return texts as they are, each behind what the tokenizer itself adds, such as BOS.

    rows: {id, text}; those without text are left out. name: what holds them, for errors.
    """

    def read(row: prompts.Row) -> Whole:
        return Whole(row["text"], prompts.started_ids(tokenizer, row["text"]))

    usable = [row for row in rows if row["text"].strip()]
    return Source(tokenizer, usable, read, name, "texts")


def draw(source: Source, count: int, max_tokens: int, seed: int) -> list[Sample]:
    """Draw `count` texts by seed, each a sequence of its own, cut behind `max_tokens` tokens of
    text: images stand before it and stay whole.

    Raises UserError when there are fewer texts.
    """
    _check_amount(count, max_tokens)
    if len(source.rows) < count:
        raise UserError(
            f"{count} calibration samples were asked for but {source.has}"
            "; ask for fewer (calibration.samples) or add some"
        )
    samples = []
    for row in prompts.seeded_order(source.rows, seed, "calibration")[:count]:
        whole = source.read(row)
        length = max_tokens + sum(whole.types)
        kept, types = whole.ids[:length], whole.types[:length]
        cut = len(whole.ids) - len(kept)
        if sum(types) < sum(whole.types):
            raise UserError(
                f"calibration.max_tokens is {max_tokens}, which would cut an image of report "
                f"{row['id']}; ask for more tokens"
            )
        text = source.tokenizer.decode(kept) if cut else whole.text
        shown = (whole.images, whole.names, types)
        samples.append(Sample((str(row["id"]),), text, kept, cut, *shown))
    return samples


def pack(source: Source, count: int, max_tokens: int, seed: int) -> list[Sample]:
    """Join texts, drawn by seed, and cut them into `count` sequences of exactly `max_tokens`.

    Each text ends with the tokenizer's EOS token, if it has one. A text that fills a sequence goes
    on in the next one. Only the end of the last text is lost. Raises UserError when all texts
    together have fewer tokens.
    """
    _check_amount(count, max_tokens)
    wanted = count * max_tokens
    stream: list[int] = []
    ends: list[int] = []  # where in the stream each text ends
    names: list[str] = []
    for name, ids in _documents(source, seed):
        stream += ids
        ends.append(len(stream))
        names.append(name)
        if len(stream) >= wanted:
            break
    else:
        raise UserError(
            f"{count} calibration samples of {max_tokens} tokens are {wanted} tokens, but "
            f"{source.has} of {len(stream)} tokens in all; ask for fewer "
            "or shorter samples or add texts"
        )
    samples = []
    for start in range(0, wanted, max_tokens):
        stop = start + max_tokens
        within = slice(bisect_right(ends, start), bisect_left(ends, stop) + 1)
        kept = stream[start:stop]
        cut = len(stream) - wanted if stop == wanted else 0
        samples.append(Sample(tuple(names[within]), source.tokenizer.decode(kept), kept, cut))
    return samples


def _documents(source: Source, seed: int) -> Iterator[tuple[str, list[int]]]:
    """Yield (id, tokens with an EOS at the end) in drawn order."""
    eos = source.tokenizer.eos_token_id
    for row in prompts.seeded_order(source.rows, seed, "calibration"):
        ids = source.read(row).ids
        closed = eos is None or ids[-1:] == [eos]
        yield str(row["id"]), ids if closed else [*ids, eos]


def _check_amount(count: int, max_tokens: int) -> None:
    if count < 1 or max_tokens < 1:
        raise UserError(
            f"{count} calibration samples of {max_tokens} tokens were asked for; both must be at "
            "least 1"
        )


def record(
    samples: Sequence[Sample],
    origin: dict[str, Any],
    prompt_hash: str | None,
    max_tokens: int,
    packed: bool,
    seed: int,
) -> dict[str, Any]:
    """Return what set.json says about the samples: where they come from and counts, no text."""
    images = sum(len(sample.images) for sample in samples)
    return {
        "source": origin,
        "prompt_hash": prompt_hash,
        "samples": len(samples),
        "tokens": sum(len(sample.ids) for sample in samples),
        "texts": len({name for sample in samples for name in sample.sources}),
        "max_tokens": max_tokens,
        "packed": packed,
        "seed": seed,
        "truncated": sum(sample.cut > 0 for sample in samples),
        "truncated_tokens": sum(sample.cut for sample in samples),
        **({"images": images} if images else {}),
    }


def table(samples: Sequence[Sample], image_weight: float = 1.0) -> pd.DataFrame:
    """Return the samples as columns id, text, tokens and input_ids (lists of int32).

    With images, there are four more columns. They are images (names of their files), image_sha256
    of these, token_types (1 for an image's token), and image_weight. The last is what an image's
    token counts for beside one of text.
    """
    made = pd.DataFrame(
        {
            "id": [sample.id for sample in samples],
            "text": [sample.text for sample in samples],
            "tokens": [len(sample.ids) for sample in samples],
            "input_ids": [np.asarray(sample.ids, dtype=np.int32) for sample in samples],
        }
    )
    if not any(sample.images for sample in samples):
        return made
    shown: Any = {
        COLUMN: [sample.names for sample in samples],
        HASHES: [SEPARATOR.join(image.sha256 for image in sample.images) for sample in samples],
        TYPES: [np.asarray(sample.types, dtype=np.int8) for sample in samples],
        WEIGHT: [image_weight] * len(samples),
    }
    return made.assign(**shown)
