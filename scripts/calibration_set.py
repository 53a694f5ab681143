"""Draw the texts on which quantization is calibrated: training reports, or the texts of a file."""

import argparse
import os
from pathlib import Path
from typing import Any

from radquant.cli import run
from radquant.errors import UserError
from radquant.files import read_json, read_table, sha256_file, sha256_text, write_json, write_table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="model whose tokenizer is used")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--train", type=Path, metavar="CSV", help="training reports; need a prompt")
    source.add_argument(
        "--texts",
        type=Path,
        metavar="FILE",
        help="instead of reports: a .csv, .jsonl or .parquet table, or a .txt file of lines",
    )
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", type=Path, metavar="FILE", help="template with {column} fields")
    prompt.add_argument("--prompt-text", metavar="TEXT", help="the template itself")
    add(
        "--with-images",
        action="store_true",
        help="the prompt may use no column, because the model will be shown images with it; "
        "calibration itself is text only",
    )
    add("--target", default="impression", metavar="COLUMN", help="the reference (%(default)s)")
    add("--column", default="text", metavar="NAME", help="column of --texts (%(default)s)")
    add("--origin", type=Path, metavar="JSON", help="what fetch_texts.py recorded of --texts")
    add("--eval", type=Path, metavar="CSV", help="evaluation reports that --texts must not hold")
    add("--samples", type=int, default=128, metavar="N", help="number of sequences (%(default)s)")
    add("--max-tokens", type=int, default=512, metavar="L", help="most tokens each (%(default)s)")
    add(
        "--pack",
        action="store_true",
        help="join texts until each of the N sequences has exactly L tokens",
    )
    add("--seed", type=int, default=0, help="seed of the draw (%(default)s)")
    add("--trust-remote-code", action="store_true", help="run Python code that the model brings")
    add("--output", type=Path, required=True, metavar="PARQUET", help="the texts and their tokens")
    add("--record", type=Path, required=True, metavar="JSON", help="their source and counts")
    return parser.parse_args()


def check_options(args: argparse.Namespace) -> None:
    prompted = args.prompt is not None or args.prompt_text is not None
    if args.train and not prompted:
        raise UserError("--train needs --prompt or --prompt-text; give the calibration prompt")
    if args.train and (args.eval or args.origin):
        raise UserError("--eval and --origin are for --texts; leave them out with --train")
    if args.texts and prompted:
        raise UserError("--texts are taken as they are; leave the prompt out")


def from_corpus(args: argparse.Namespace) -> tuple[Any, dict[str, Any], str]:
    """Return the training reports, what set.json says of them, and the prompt's hash."""
    from radquant import prompts
    from radquant.calibration import sequences

    template = prompts.read_template(args.prompt, args.prompt_text)
    train = read_table(args.train, require=["id"])
    columns = [name for name in train.columns if name != "images"]
    prompts.check_template(template, columns, args.target, images=args.with_images)

    from radquant.checkpoints.loading import load_tokenizer

    tokenizer = load_tokenizer(args.model, args.trust_remote_code)
    rows = train.to_dict("records")
    source = sequences.reports(tokenizer, rows, template, args.target)
    return source, {"kind": "corpus"}, sha256_text(template)


def from_file(args: argparse.Namespace) -> tuple[Any, dict[str, Any], None]:
    """Return the texts of a file and what set.json says of it; there is no prompt."""
    from radquant.calibration import sequences, texts

    rows = texts.read_texts(args.texts, args.column)
    if args.eval:
        evaluation = read_table(args.eval, require=["findings", "impression", "text"])
        held_out = evaluation.to_dict("records")
        texts.check_unseen(rows, held_out, args.target, str(args.texts))
    origin = {"kind": "table", "path": str(args.texts), "sha256": sha256_file(args.texts)}
    if args.origin:
        fetched = read_json(args.origin)
        if fetched.get("sha256") != origin["sha256"]:
            raise UserError(f"{args.texts} is not the file that {args.origin} tells of; fetch both")
        origin = fetched

    from radquant.checkpoints.loading import load_tokenizer

    tokenizer = load_tokenizer(args.model, args.trust_remote_code)
    name = f"column {args.column!r} of {args.texts}"
    source = sequences.plain_texts(tokenizer, rows, name)
    return source, {**origin, "column": args.column}, None


def main() -> None:
    args = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    check_options(args)

    from radquant.calibration import sequences

    source, origin, prompt_hash = from_corpus(args) if args.train else from_file(args)
    make = sequences.pack if args.pack else sequences.draw
    samples = make(source, args.samples, args.max_tokens, args.seed)
    write_table(args.output, sequences.table(samples))
    write_json(
        args.record,
        sequences.record(samples, origin, prompt_hash, args.max_tokens, args.pack, args.seed),
    )


if __name__ == "__main__":
    run(main)
