"""Prompts: templates with {column} fields, few-shot examples, chat templates, tokens.

Only the standard library is imported, because the workflow checks its prompts at every start.
"""

import hashlib
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radquant.errors import UserError

Row = Mapping[str, Any]

# `text` is the whole report: who sees it has seen its findings and its impression.
WHOLE_REPORT = "text"
REPORTED = ("findings", "impression")

# How models mark thinking that is not part of their answer: Qwen and DeepSeek; MedGemma.
THINKING = (("<think>", "</think>"), ("<unused94>", "<unused95>"))


# ---------------------------------------------------------------------------------- templates


def read_template(path: str | Path | None, text: str | None) -> str:
    """Return the template in `text` if given, else that in the UTF-8 file `path`.

    Newlines at the end, which editors add, are not part of it.
    """
    if text is None:
        if path is None:
            raise UserError("no prompt was given; name a file or write the text")
        text = _read_utf8(Path(path))
    if not text.strip():
        raise UserError(f"the prompt {path if path else 'text'} is empty; write an instruction")
    return text.rstrip("\r\n")


def _read_utf8(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"the prompt file {path} does not exist; check the path")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error


def _parts(template: str) -> list[tuple[str, str | None]]:
    """Split a template into (literal text, column or None) pairs; {{ and }} stand for braces."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(
            f"the prompt has an unpaired brace ({error}); write {{{{ and }}}} for braces as text"
        ) from error
    for _, field, spec, conversion in parsed:
        if field is not None and (not field.strip() or spec or conversion):
            raise UserError(
                f"the prompt has a field {{{field}}} that is not just the name of a column; "
                "write {{ and }} for braces as text"
            )
    return [(literal, field) for literal, field, _, _ in parsed]


def columns_of(template: str) -> list[str]:
    """Return the columns that a template uses, each once, in the order of first use."""
    return list(dict.fromkeys(field for _, field in _parts(template) if field is not None))


def fixed_texts(template: str) -> list[str]:
    """Return the pieces of a template that are the same for every report."""
    return [literal for literal, _ in _parts(template) if literal.strip()]


def check_template(
    template: str, columns: Sequence[str], target: str, images: bool = False
) -> None:
    """Raise UserError unless `template` uses `columns` only, at least one, and not the reference.

    `columns` are those of the data, `target` the column that holds the reference. `images`: whether
    the report's images are shown with the prompt, which then need not use a column.
    """
    listing = f"the columns are {', '.join(columns)}"
    used = columns_of(template)
    missing = [name for name in used if name not in columns]
    if missing:
        raise UserError(f"the prompt uses {{{missing[0]}}}, which is no column; {listing}")
    if target not in columns:
        raise UserError(f"the reference column {target!r} is no column; {listing}")
    if not used and not images:
        raise UserError(
            f"the prompt uses no column, so every report would get the same one; {listing}, and a "
            "field is written {findings}"
        )
    for name in used:
        if _holds_reference(name, target):
            raise UserError(
                f"the prompt uses {{{name}}}, which holds the reference (column {target!r}); "
                f"take it out of the prompt; {listing}"
            )


def _holds_reference(column: str, target: str) -> bool:
    if WHOLE_REPORT in (column, target):
        return column == target or column in REPORTED or target in REPORTED
    return column == target


def render(template: str, row: Row) -> str:
    """Return `template` with its fields replaced by the row's values, which are taken as they are.

    A brace in a value is text: nothing is substituted twice.
    """
    return "".join(
        literal + ("" if field is None else str(row[field])) for literal, field in _parts(template)
    )


# ----------------------------------------------------------------------------------- examples


def seeded_order(rows: Sequence[Row], seed: int, purpose: str) -> list[Row]:
    """Return `rows` shuffled by a hash of seed, purpose and id.

    A row's place depends on no other row, so adding rows changes little.
    """

    def place(row: Row) -> str:
        return hashlib.sha256(f"{seed}\0{purpose}\0{row['id']}".encode()).hexdigest()

    return sorted(rows, key=place)


def draw_examples(
    train: Sequence[Row],
    template_columns: Sequence[str],
    target: str,
    count: int,
    max_words: int,
    seed: int,
) -> list[Row]:
    """Draw `count` few-shot examples from the training rows.

    An example has text in all the prompt's columns and a reference, of at most `max_words` words
    together, and their references differ from each other. The last one is routine: its reference
    is the most frequent of the training split, which in radiology says that nothing is wrong. The
    others come first and say something else: references that occur least often and, among these,
    share the fewest words with the routine one; the seed decides among equals. (Small models
    imitate the last example, so the usual answer stands there.)
    """
    if count == 0:
        return []
    rows = seeded_order(train, seed, "examples")
    frequency = Counter(_key(row[target]) for row in rows)
    frequency.pop("", None)
    if not frequency:
        raise UserError(f"no training report has text in the reference column {target!r}")
    routine = frequency.most_common(1)[0][0]  # the first in seeded order among equals

    def fits(row: Row) -> bool:
        texts = [str(row[name]) for name in (*template_columns, target)]
        return all(text.strip() for text in texts) and _words(texts) <= max_words

    distinct: dict[str, Row] = {}
    for row in rows:
        if fits(row):
            distinct.setdefault(_key(row[target]), row)
    usual = [distinct.pop(routine)] if routine in distinct else []

    def likeness(key: str) -> tuple[int, int]:
        return frequency[key], len(set(key.split()) & set(routine.split()))

    others = [distinct[key] for key in sorted(distinct, key=likeness)]
    drawn = [*others[: count - len(usual)], *usual]
    if len(drawn) < count:
        raise UserError(
            f"{count} few-shot examples were asked for but only {len(drawn)} training reports with "
            f"distinct references have at most {max_words} words; ask for fewer or for longer ones"
        )
    return drawn


def _words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)


def _key(text: Any) -> str:
    """Return the text's letters and digits in lower case: what makes two references the same."""
    return " ".join(re.findall(r"\w+", str(text).lower()))


# ------------------------------------------------------------------------ chat templates, tokens


@dataclass(frozen=True)
class Prompt:
    """What one report puts into the model."""

    id: str
    text: str  # as rendered, before tokens were dropped
    ids: list[int]  # prompt tokens, BOS included where the model has one
    truncated: int  # leading prompt tokens that were dropped to fit
    lead: str  # white space that stands between prompt and answer in the model's chat template
    answer_ids: list[int]  # tokens of the reference as they follow the prompt; [] if not asked for
    stored: int = 0  # how many more `ids` are than the prompt's own, where a checkpoint adds some
    images: tuple[Any, ...] = ()  # the report's image_files.ImageFile, in the order of their tokens
    types: tuple[int, ...] = ()  # 1 for each of `ids` that is an image's, else 0; () without images

    @property
    def length(self) -> int:
        """Return the number of the prompt's own tokens."""
        return len(self.ids) - self.stored

    @property
    def hash(self) -> str:
        """Return the sha256 of the rendered text and, if there are images, of their files' own."""
        parts = [self.text, *(image.sha256 for image in self.images)]
        return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()


def chat_prompt(
    tokenizer: Any,
    template: str,
    row: Row,
    examples: Sequence[Row],
    target: str,
    limit: int | None = None,
    with_answer: bool = False,
    images: Sequence[Any] = (),
    processor: Any = None,
) -> Prompt:
    """Return the prompt of one report.

    With a chat template, the rendered prompt is the user's turn and examples are earlier turns;
    without one, examples and prompt are blocks of plain text. `limit` is the largest number of
    tokens of prompt and answer together, except that the answer is never cut: of a longer prompt
    the tail is kept, behind the BOS token if it began with one. `images` are shown before the
    prompt's text, their tokens by `processor`, the model's own; such a prompt is never cut.
    """
    text, lead = prompt_text(tokenizer, template, row, examples, target, len(images))
    read = _with_image_tokens(processor, text, len(images), str(row["id"])) if images else text
    ids = token_ids(tokenizer, read)
    answer_ids = (
        _answer_tokens(tokenizer, read, ids, lead + str(row[target])) if with_answer else []
    )
    room = None if limit is None else limit - len(answer_ids)
    if images and room is not None and len(ids) > room:
        raise UserError(
            f"report {row['id']}: its prompt has {len(ids)} tokens with {len(images)} images, and "
            f"the model's context leaves room for {room}; name fewer images"
        )
    ids, truncated = _keep_tail(ids, room, tokenizer.bos_token_id)
    types = tuple(processor.create_mm_token_type_ids([ids])[0]) if images else ()
    return Prompt(
        str(row["id"]), text, ids, truncated, lead, answer_ids, images=tuple(images), types=types
    )


def _with_image_tokens(processor: Any, text: str, count: int, report: str) -> str:
    """Return a prompt with all tokens of an image where the text says that one begins.

    The processor does the same, but would look at the images: each has equally many tokens.
    """
    found = text.count(processor.boi_token)
    if found != count or processor.tokenizer.image_token in text:
        raise UserError(
            f"report {report}: its prompt says {found} times that an image begins, and it has "
            f"{count}; take {processor.boi_token} and {processor.tokenizer.image_token} out of "
            "the prompt and the report's columns"
        )
    expanded: str = text.replace(processor.boi_token, processor.full_image_sequence)
    return expanded


def prompt_text(
    tokenizer: Any,
    template: str,
    row: Row,
    examples: Sequence[Row],
    target: str,
    images: int = 0,
) -> tuple[str, str]:
    """Return the prompt as text, and the white space that the chat template puts before answers.

    `images`: how many are shown before the prompt's own text; they need a chat template.
    """
    shots = [(render(template, example), str(example[target])) for example in examples]
    final = render(template, row)
    if not has_chat_template(tokenizer):
        blocks = [f"{prompt}\n{answer}\n\n" for prompt, answer in shots]
        return "".join(blocks) + final + "\n", ""
    turns: list[dict[str, Any]] = []
    for prompt, answer in shots:
        turns.append({"role": "user", "content": prompt})
        turns.append({"role": "assistant", "content": answer})
    shown = [{"type": "image"}] * images
    content = [*shown, {"type": "text", "text": final}] if images else final
    turns.append({"role": "user", "content": content})
    return apply_chat(tokenizer, turns, generation=True), _answer_frame(tokenizer)[0]


def has_chat_template(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))


def apply_chat(tokenizer: Any, turns: list[dict[str, Any]], generation: bool) -> str:
    return tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=generation, enable_thinking=False
    )


def _answer_frame(tokenizer: Any) -> tuple[str, str]:
    """Return what the chat template writes right before and right after an answer.

    Before: only white space that it writes after the generation prompt (Mistral's "[/INST] ").
    After: the end-of-turn marker and what follows it.
    """
    question = {"role": "user", "content": "question"}
    marker = "Zebra"  # a word that no chat template writes itself
    answer = {"role": "assistant", "content": marker}
    opened = apply_chat(tokenizer, [question], generation=True)
    closed = apply_chat(tokenizer, [question, answer], generation=False)
    before, _, after = closed.rpartition(marker)
    lead = before.removeprefix(opened) if before.startswith(opened) else ""
    return (lead if lead.isspace() else ""), after


def end_token_ids(tokenizer: Any, generation_config: Any) -> list[int]:
    """Return every token that ends an answer: the model's, the tokenizer's, the chat turn's."""
    configured = getattr(generation_config, "eos_token_id", None)
    ends = list(configured) if isinstance(configured, list | tuple) else [configured]
    ends.append(tokenizer.eos_token_id)
    if has_chat_template(tokenizer):
        after = token_ids(tokenizer, _answer_frame(tokenizer)[1].lstrip(), special=False)
        markers = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        ends += [token for token in after[:1] if token in markers]
    return sorted({int(token) for token in ends if token is not None})


def token_ids(tokenizer: Any, text: str, special: bool = True) -> list[int]:
    """Return the tokens of `text`, with exactly one BOS if the model's tokenizer adds one.

    A chat template writes its own BOS; an EOS that a tokenizer would add never belongs in a prompt.
    """
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    bos = tokenizer.bos_token_id
    if special and bos is not None and not has_chat_template(tokenizer):
        adds_bos = list(tokenizer("a")["input_ids"])[:1] == [bos]
        if adds_bos and ids[:1] != [bos]:
            ids.insert(0, bos)
    return ids


def _answer_tokens(tokenizer: Any, text: str, ids: list[int], answer: str) -> list[int]:
    """Return the tokens of `answer` as they follow the prompt `text`, whose tokens are `ids`."""
    joint = token_ids(tokenizer, text + answer)
    if joint[: len(ids)] == ids:
        return joint[len(ids) :]
    # Prompt and answer melt into one token; the model answers after whole prompt tokens.
    return token_ids(tokenizer, answer, special=False)


def _keep_tail(ids: list[int], room: int | None, bos: int | None) -> tuple[list[int], int]:
    if room is None or len(ids) <= room:
        return ids, 0
    head = ids[:1] if ids[0] == bos else []
    if room <= len(head):
        raise UserError("the model's context leaves no room for a prompt; ask for fewer new tokens")
    dropped = len(ids) - room
    return head + ids[len(head) + dropped :], dropped


def remove_thinking(text: str) -> str:
    """Return `text` without what a model marked as thinking, closed or cut off."""
    for start, end in THINKING:
        text = re.sub(f"{re.escape(start)}.*?(?:{re.escape(end)}|$)", "", text, flags=re.DOTALL)
        text = text.rpartition(end)[2]  # thinking that began in the prompt
    return text.strip()
