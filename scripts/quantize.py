"""Quantize the weights of a model, one decoder layer at a time, and store them packed."""

import argparse
import os
from pathlib import Path

from radquant.cli import run
from radquant.quantization.job import Job


def parse_arguments() -> argparse.Namespace:
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
    add(
        "--method",
        choices=["awq", "gptq", "rtn"],
        default="awq",
        help="rtn is plain rounding to nearest (%(default)s)",
    )
    add(
        "--bits",
        type=int,
        choices=[2, 3, 4, 8],
        default=4,
        help="bits of a weight; 2 not with awq (%(default)s)",
    )
    add(
        "--group-size",
        type=int,
        choices=[32, 64, 128, -1],
        default=128,
        help="input channels that share a scale; -1 for all of a row (%(default)s)",
    )
    add("--symmetric", action="store_true", help="a grid about 0 instead of one with zero points")
    add(
        "--rounding",
        choices=["nearest", "gptq"],
        default="nearest",
        help="awq: how the scaled weights are rounded (%(default)s)",
    )
    add(
        "--no-clip",
        action="store_true",
        help="cover each group's whole range instead of searching how much of it to keep",
    )
    add(
        "--desc-act",
        action="store_true",
        help="gptq: form the groups in order of activation, which needs a group index",
    )
    add(
        "--damp-percent",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="gptq's rounding: share of the mean diagonal added to the Gram matrix (%(default)s)",
    )
    add(
        "--transform",
        choices=["none", "smooth", "hadamard"],
        default="none",
        help="before: move outlying input channels into the weights, or rotate the model "
        "(%(default)s)",
    )
    add(
        "--smooth-attention",
        action="store_true",
        help="before: move outlying channels of keys into the queries",
    )
    add(
        "--prefix",
        choices=["none", "auto"],
        default="none",
        help="auto: find tokens that stand out and store their keys and values before every text",
    )
    add(
        "--activations",
        metavar="JSON",
        help='fit weights, and static ranges, to rounded activations, such as {"bits": 8}',
    )
    add(
        "--progressive",
        action="store_true",
        help="QoQ's grid for INT8 products: group scales are multiples of an INT8 channel scale",
    )
    add(
        "--format",
        choices=["gemm", "gptq", "compressed-tensors", "qoq"],
        help="layout of the packed tensors; by default the one that the method is known by",
    )
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (%(default)s)")
    add("--trust-remote-code", action="store_true", help="run Python code that the model brings")
    add("--output", type=Path, required=True, metavar="DIR", help="checkpoint to write")
    add(
        "--work",
        type=Path,
        metavar="DIR",
        help="finished layers of a run that was killed; by default a hidden one beside the output",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    job = Job(
        args.model,
        args.output,
        args.calibration,
        args.calibration_record,
        args.device,
        args.threads,
        args.trust_remote_code,
    )

    from radquant.quantization.quantizing import quantize
    from radquant.settings.precision import from_json
    from radquant.settings.recipe import recipe_of

    values = {
        **vars(args),
        "zero_point": not args.symmetric,
        "clip": not args.no_clip,
        "activations": from_json(args.activations),
    }
    quantize(job, recipe_of(values), args.format, args.work)


if __name__ == "__main__":
    run(main)
