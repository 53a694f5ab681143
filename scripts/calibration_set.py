"""Draw the texts on which quantization is calibrated: training reports, or the texts of a file."""

import argparse
import os
from pathlib import Path

from radquant.cli import run
from radquant.files import write_json, write_table


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


def main() -> None:
    args = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"

    from radquant.calibration import sets
    from radquant.prompts import read_template

    sets.check_options(args.train, args.prompt, args.prompt_text, args.eval, args.origin)
    given: sets.Reports | sets.Texts
    if args.train:
        template = read_template(args.prompt, args.prompt_text)
        given = sets.Reports(args.train, template, args.target, args.with_images)
    else:
        given = sets.Texts(args.texts, args.column, args.origin, args.eval, args.target)
    amount = (args.samples, args.max_tokens, args.pack, args.seed)
    table, record = sets.calibration_set(args.model, given, *amount, args.trust_remote_code)
    write_table(args.output, table)
    write_json(args.record, record)


if __name__ == "__main__":
    run(main)
