"""Write a packed checkpoint in the layout of another server."""

import argparse
import os
from pathlib import Path

from radquant.cli import run

EPILOG = """omniserve is QServe's server (docs/qserve.md), modelopt the layout of ModelOpt that
TensorRT-LLM reads (docs/tensorrt-llm.md). What a layout cannot hold is refused."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR",
        help="checkpoint of scripts/quantize.py, or another in one of its formats",
    )
    add("--format", choices=["omniserve", "modelopt"], required=True, help="whose layout")
    add(
        "--keep-norms",
        action="store_true",
        help="omniserve: norms that are not 1 are written, for a server whose loader reads them",
    )
    add(
        "--dtype",
        choices=["float16", "bfloat16"],
        help="modelopt: of what is not packed, and what the server computes in; by default the "
        "checkpoint's own",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="directory to write")
    arguments = parser.parse_args()
    if arguments.keep_norms and arguments.format != "omniserve":
        parser.error("--keep-norms is for omniserve")
    if arguments.dtype and arguments.format != "modelopt":
        parser.error("--dtype is for modelopt; omniserve computes in float16")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"

    from radquant.export.modelopt import export_modelopt
    from radquant.export.omniserve import export_omniserve

    if arguments.format == "omniserve":
        export_omniserve(arguments.checkpoint, arguments.output, arguments.keep_norms)
    else:
        export_modelopt(arguments.checkpoint, arguments.output, arguments.dtype)


if __name__ == "__main__":
    run(main)
