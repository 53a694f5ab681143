"""Quantize the weights of a model, one decoder layer at a time, and store them packed."""

import argparse
import os
from pathlib import Path
from typing import Any

from radquant.cli import run
from radquant.quantization.job import add_arguments, job_of
from radquant.settings import stages
from radquant.settings.options import parse


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="finished layers of a run that was killed; by default a hidden one beside the output",
    )
    return parse(parser, stages.QUANTIZE)


def main() -> None:
    args, settings = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    # PyTorch asks for large pages, which it must know before its first tensor: in pages of 4 KiB a
    # tensor of 64 MB takes five times as long to get as to fill.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    job = job_of(args, settings)

    from radquant.quantization.quantizing import quantize

    quantize(job, settings.checkpoint.recipe, settings.checkpoint.format, args.work)


if __name__ == "__main__":
    run(main)
