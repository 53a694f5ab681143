"""Make the prompts of the evaluation, and check that its engine computes with the original."""

import argparse
import os
from pathlib import Path
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.generation import stage
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/check_prompts.py --model models/SmolLM2 --train train.csv \
    --eval eval.csv --prompt prompts/impression.txt --output prompts.json"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    stage.add_inputs(parser)
    add = parser.add_argument
    add("--compared", type=Path, metavar="JSON", help="what check_model.py wrote of the model")
    add("--output", type=Path, required=True, metavar="JSON", help="record to write")
    return parse(parser, stages.CHECK_PROMPTS)


def main() -> None:
    args, settings = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    reading = stage.read(args, settings)
    wanted = stage.wanted_of(args, settings)

    from radquant.files import read_json, write_json
    from radquant.generation.checked_prompts import check_prompts

    compared = read_json(args.compared) if args.compared else None
    record = check_prompts(settings.compute.engine, wanted, reading, compared)
    write_json(args.output, record)
    done(args.output, f"{record['prompts']} prompts, {record['longest_prompt']} tokens at most")


if __name__ == "__main__":
    run(main)
