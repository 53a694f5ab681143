"""The calibration set: where its texts come from, and the table and record that are kept of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from radquant import prompts
from radquant.calibration import sequences, texts
from radquant.errors import UserError
from radquant.failures import withheld_panics
from radquant.files import read_json, read_table, sha256_file, sha256_text
from radquant.image_roots import require_folder
from radquant.token_texts import check_known


@dataclass(frozen=True)
class Reports:
    """Training reports, each the prompt with its reference behind it."""

    train: Path
    template: str
    target: str  # column of the reference
    with_images: bool  # shown with the prompt by the model's users, so that it may use no column
    date: str = prompts.DATE  # that a chat template is told which asks for it
    image_root: Path | None = None  # of the images that calibration is shown; None: text alone
    image_weight: float = 1.0  # what an image's token counts for beside one of text


@dataclass(frozen=True)
class Texts:
    """The texts of a file, as they are."""

    path: Path
    column: str
    origin: Path | None  # what scripts/fetch_texts.py recorded of the file
    evaluation: Path | None  # evaluation reports that it must not hold
    target: str  # column of the evaluation's reference


def check_options(
    train: Path | None,
    prompt: Path | None,
    prompt_text: str | None,
    evaluation: Path | None,
    origin: Path | None,
) -> None:
    """Raise UserError where options of scripts/calibration_set.py are of another source's texts.

    train: None where the texts are those of a file.
    """
    prompted = prompt is not None or prompt_text is not None
    if train and not prompted:
        raise UserError("--train needs --prompt or --prompt-text; give the calibration prompt")
    if train and (evaluation or origin):
        raise UserError("--eval and --origin are for --texts; leave them out with --train")
    if not train and prompted:
        raise UserError("--texts are taken as they are; leave the prompt out")


def calibration_set(
    model: Path,
    given: Reports | Texts,
    count: int,
    max_tokens: int,
    pack: bool,
    seed: int,
    trust_remote_code: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Draw `count` sequences of at most `max_tokens` tokens, or, with `pack`, of exactly as many.

    model: the directory whose tokenizer is used. Returns the table of the samples and their record
    (set.json). Raises UserError where there are too few texts, or one is of the evaluation.
    """
    if pack and isinstance(given, Reports) and given.image_root is not None:
        raise UserError("texts that are joined would part images; leave out --pack or --image-root")
    source, origin, prompt_hash = source_of(given, model, trust_remote_code)
    make = sequences.pack if pack else sequences.draw
    with withheld_panics():
        samples = make(source, count, max_tokens, seed)
    for sample in samples:
        what = f"the calibration sample {sample.id}"
        check_known(source.tokenizer, sample.ids, vocabulary_in(model), what)
    record = sequences.record(samples, origin, prompt_hash, max_tokens, pack, seed)
    weight = 1.0
    if isinstance(given, Reports):
        record["date"] = given.date
        if given.image_root is not None:
            weight = record["image_weight"] = given.image_weight
    return sequences.table(samples, weight), record


def require_images(table: pd.DataFrame, path: Path) -> None:
    """Raise UserError unless the samples show images."""
    if "images" not in table.columns:
        raise UserError(
            f"{path} would hold texts alone, so there are no images to list; give --image-root and "
            "--images, or leave --images-output out"
        )


Found = tuple[sequences.Source, dict[str, Any], str | None]


def source_of(given: Reports | Texts, model: Path, trust_remote_code: bool) -> Found:
    """Return the texts, what set.json says of them, and the hash of the prompt, if there is one."""
    if isinstance(given, Reports):
        return from_corpus(given, model, trust_remote_code)
    return from_file(given, model, trust_remote_code)


def from_corpus(given: Reports, model: Path, trust_remote_code: bool) -> Found:
    train = read_table(given.train, require=["id"])
    columns = [name for name in train.columns if name != "images"]
    prompts.check_template(given.template, columns, given.target, images=given.with_images)

    from radquant.checkpoints.loading import load_tokenizer
    from radquant.vision.processors import load_processor

    tokenizer = load_tokenizer(model, trust_remote_code)
    shown = None
    if given.image_root is not None:
        if "images" not in train.columns:
            raise UserError(f"{given.train} has no column 'images', which --image-root needs")
        require_folder(given.image_root)
        shown = sequences.Shown(load_processor(model, tokenizer), given.image_root)
    source = sequences.reports(
        *(tokenizer, rows_of(train), given.template, given.target, given.date), shown=shown
    )
    return source, {"kind": "corpus"}, sha256_text(given.template)


def from_file(given: Texts, model: Path, trust_remote_code: bool) -> Found:
    rows = texts.read_texts(given.path, given.column)
    if given.evaluation:
        evaluation = read_table(given.evaluation, require=["findings", "impression", "text"])
        texts.check_unseen(rows, rows_of(evaluation), given.target, str(given.path))
    origin = {"kind": "table", "path": str(given.path), "sha256": sha256_file(given.path)}
    if given.origin:
        fetched = read_json(given.origin)
        if fetched.get("sha256") != origin["sha256"]:
            raise UserError(
                f"{given.path} is not the file that {given.origin} tells of; fetch both"
            )
        origin = fetched

    from radquant.checkpoints.loading import load_tokenizer

    tokenizer = load_tokenizer(model, trust_remote_code)
    name = f"column {given.column!r} of {given.path}"
    source = sequences.plain_texts(tokenizer, rows, name)
    return source, {**origin, "column": given.column}, None


def vocabulary_in(model: Path) -> int | None:
    """How many tokens the model knows by its config.json; None if that does not say."""
    config = read_json(model / "config.json") if (model / "config.json").is_file() else {}
    text = config.get("text_config")
    size = (text if isinstance(text, dict) else config).get("vocab_size")
    return size if isinstance(size, int) else None


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): cell for name, cell in row.items()} for row in table.to_dict("records")]
