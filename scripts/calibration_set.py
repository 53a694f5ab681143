"""Draw the texts on which quantization is calibrated: training reports, or the texts of a file."""

import argparse
import os
from pathlib import Path
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.files import write_json, write_table
from radquant.image_files import COLUMN, HASHES
from radquant.meant import model_folder, split
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/calibration_set.py --model models/SmolLM2 --train train.csv \
    --prompt prompts/calibration.txt --samples 128 \
    --output samples.parquet --record set.json"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add(
        "--model",
        type=model_folder,
        required=True,
        metavar="DIR",
        help="model whose tokenizer is used",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--train", type=split, metavar="CSV", help="training reports; need a prompt"
    )
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
        help="the prompt may use no column, because the model will be shown images with it",
    )
    add("--column", default="text", metavar="NAME", help="column of --texts")
    add("--origin", type=Path, metavar="JSON", help="what fetch_texts.py recorded of --texts")
    add("--eval", type=Path, metavar="CSV", help="evaluation reports that --texts must not hold")
    add("--output", type=Path, required=True, metavar="PARQUET", help="the texts and their tokens")
    help_text = "table to write of the images that the samples show, for encode_images.py"
    add("--images-output", type=Path, metavar="CSV", help=help_text)
    add("--record", type=Path, required=True, metavar="JSON", help="their source and counts")
    return parse(parser, stages.CALIBRATION_SET)


def main() -> None:
    args, settings = arguments()
    target, texts = settings.task.target, settings.calibration
    os.environ["HF_HUB_OFFLINE"] = "1"

    from radquant.calibration import sets
    from radquant.instructions import read_template

    sets.check_options(args.train, args.prompt, args.prompt_text, args.eval, args.origin)
    given: sets.Reports | sets.Texts
    if args.train:
        template = read_template(args.prompt, args.prompt_text)
        root = settings.corpus.image_root
        given = sets.Reports(
            *(args.train, template, target, args.with_images, settings.task.date),
            Path(root) if root else None,
            texts.image_weight,
        )
    else:
        given = sets.Texts(args.texts, args.column, args.origin, args.eval, target)
    amount = (texts.samples, texts.max_tokens, texts.pack, settings.run.seed)
    code = settings.model.trust_remote_code
    table, record = sets.calibration_set(args.model, given, *amount, code)
    if args.images_output:
        sets.require_images(table, args.output)
        write_table(args.images_output, table[["id", COLUMN, HASHES]])
    write_table(args.output, table)
    write_json(args.record, record)
    tokens = sum(map(len, table["input_ids"]))
    done(args.output, f"{len(table)} samples, {tokens} tokens")


if __name__ == "__main__":
    run(main)
