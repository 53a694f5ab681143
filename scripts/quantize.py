"""Quantize the weights of a model, one decoder layer at a time, and store them packed."""

import argparse
import os
from pathlib import Path
from typing import Any

from radquant.cli import run
from radquant.quantization.job import Job
from radquant.settings import stages
from radquant.settings.options import parse


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="Hugging Face model directory")
    add(
        "--calibration",
        type=Path,
        metavar="PARQUET",
        help="samples of scripts/calibration_set.py; awq and gptq need them, rtn does not",
    )
    add(
        "--calibration-record",
        type=Path,
        metavar="JSON",
        help="where the samples come from, for the record (set.json beside them)",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="checkpoint to write")
    add(
        "--work",
        type=Path,
        metavar="DIR",
        help="finished layers of a run that was killed; by default a hidden one beside the output",
    )
    return parse(parser, stages.QUANTIZE)


def main() -> None:
    args, settings = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    job = Job(
        args.model,
        args.output,
        args.calibration,
        args.calibration_record,
        settings.compute.device,
        settings.compute.threads,
        settings.model.trust_remote_code,
    )

    from radquant.quantization.quantizing import quantize

    quantize(job, settings.checkpoint.recipe, settings.checkpoint.format, args.work)


if __name__ == "__main__":
    run(main)
