"""Write a packed checkpoint in the layout of another server."""

import argparse
import os
from pathlib import Path

from radquant.cli import done, new_parser, run, size_of
from radquant.meant import model_folder

EXAMPLE = r"""python scripts/export.py --checkpoint results/checkpoints/qoq-w4 \
    --format omniserve --output qoq-w4-omniserve"""

EPILOG = """omniserve is QServe's server (docs/qserve.md), modelopt the layout of ModelOpt that
TensorRT-LLM reads (docs/tensorrt-llm.md). What a layout cannot hold is refused."""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE, EPILOG)
    add = parser.add_argument
    add(
        "--checkpoint",
        type=model_folder,
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
        help="modelopt: of what is not packed, and what the server computes in (default: the "
        "checkpoint's own)",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="directory to write")
    options = parser.parse_args()
    if options.keep_norms and options.format != "omniserve":
        parser.error("--keep-norms is for omniserve")
    if options.dtype and options.format != "modelopt":
        parser.error("--dtype is for modelopt; omniserve computes in float16")
    return options


def main() -> None:
    options = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"

    from radquant.export.modelopt import export_modelopt
    from radquant.export.omniserve import export_omniserve

    if options.format == "omniserve":
        export_omniserve(options.checkpoint, options.output, options.keep_norms)
    else:
        export_modelopt(options.checkpoint, options.output, options.dtype)
    done(options.output, f"{size_of(options.output)} for {options.format}")


if __name__ == "__main__":
    run(main)
