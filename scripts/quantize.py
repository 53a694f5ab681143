"""Quantize the weights of a model, one decoder layer at a time, and store them packed."""

import argparse
import os
from pathlib import Path
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.model_files import sizes
from radquant.quantization.job import add_arguments, job_of
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/quantize.py --model models/SmolLM2 \
    --calibration samples.parquet --method awq --bits 4 --group-size 64 \
    --output models/SmolLM2-awq"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    add_arguments(parser)
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="finished layers of a run that was killed (default: a hidden one beside the output)",
    )
    return parse(parser, stages.QUANTIZE)


def main() -> None:
    args, settings = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    # PyTorch asks for large pages, and must know so before its first tensor. In pages of 4 KiB,
    # getting a tensor of 64 MB takes five times as long as filling it.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    job = job_of(args, settings)

    from radquant.quantization.quantizing import quantize

    quantize(job, settings.checkpoint.recipe, settings.checkpoint.format, args.work)
    done(job.output, sizes(job.output, job.model, "the original"))


if __name__ == "__main__":
    run(main)
