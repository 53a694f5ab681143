"""Time precisions in turn, with the same prompts and the same number of tokens for all."""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.errors import UserError
from radquant.generation import stage
from radquant.generation.engines.kind import Wanted
from radquant.meant import model_folder
from radquant.settings import stages
from radquant.settings.options import parse
from radquant.settings.sentences import made

EXAMPLE = r"""python scripts/measure_speed.py --timed original=models/SmolLM2 \
    --timed awq=models/SmolLM2-awq --train train.csv --eval eval.csv \
    --prompt prompts/impression.txt --output speed.json"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    many: dict[str, Any] = {"action": "append", "default": []}
    help_text = "a precision's name, and its original model or checkpoint; once for each"
    add("--timed", required=True, metavar="NAME=DIR", help=help_text, **many)
    help_text = "what a precision rounds, its activations, kv_cache and lm_head, and its engine"
    add("--rounding", metavar="NAME=JSON", help=help_text, **many)
    help_text = "features of the images that a precision is shown (encode_images.py); once for each"
    add("--features", metavar="NAME=DIR", help=help_text, **many)
    stage.add_engine_python(parser)
    stage.add_reports(parser)
    add("--output", type=Path, required=True, metavar="JSON", help="record of timings to write")
    return parse(parser, stages.MEASURE_SPEED)


def named(option: str, values: list[str]) -> dict[str, str]:
    """{name: value} of the words NAME=VALUE that an option was given."""
    pairs = [value.partition("=") for value in values]
    for name, sign, value in pairs:
        if not (name and sign and value):
            raise UserError(f"{option} {name}{sign}{value} is not of the form NAME=VALUE")
    found = {name: value for name, _, value in pairs}
    if len(found) < len(pairs):
        raise UserError(f"{option} names a precision twice; remove one")
    return found


def roundings(values: list[str]) -> dict[str, Any]:
    section = stages.TIMED.section()
    found = {}
    for name, text in named("--rounding", values).items():
        try:
            found[name] = made(section, json.loads(text), f"--rounding {name}")
        except ValueError:
            raise UserError(f"--rounding of {name} is no JSON; give an object") from None
    return found


def wanted(args: argparse.Namespace, settings: Any) -> dict[str, Wanted]:
    models, rounded = named("--timed", args.timed), roundings(args.rounding)
    features = named("--features", args.features)
    for option, names in (("--rounding", rounded), ("--features", features)):
        for name in names:
            if name not in models:
                raise UserError(f"{option} names {name}, which --timed does not; name it there")
    found = {}
    for name, model in models.items():
        args.model = model_folder(model)
        args.features = Path(features[name]) if name in features else None
        plain = replace(stage.wanted_of(args, settings), python=args.engine_python)
        found[name] = replace(plain, **dict(rounded.get(name, {})))
    args.model = Path(next(iter(models.values())))
    return found


def main() -> None:
    args, settings = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if not settings.speed.repeats:
        raise UserError("--repeats is 0, which measures nothing; use at least 3")
    precisions = wanted(args, settings)
    reading = stage.read(args, settings)

    from radquant.files import write_json
    from radquant.generation.speed import measure, told

    engine, batch_size = settings.compute.engine, settings.generation.batch_size
    record = measure(engine, precisions, reading, settings.speed, batch_size)
    write_json(args.output, record)
    done(args.output, told(record))


if __name__ == "__main__":
    run(main)
