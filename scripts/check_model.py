"""Check that the original model is the same to transformers and to the quantizer."""

import argparse
import os
from pathlib import Path
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.meant import model_folder
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = "python scripts/check_model.py --model models/SmolLM2 --output check.json"


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add(
        "--model",
        type=model_folder,
        required=True,
        metavar="DIR",
        help="Hugging Face model directory",
    )
    add("--output", type=Path, required=True, metavar="JSON", help="record to write")
    return parse(parser, stages.CHECK_MODEL)


def main() -> None:
    args, settings = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"

    import torch

    from radquant.files import write_json
    from radquant.verification.same_model import check_model

    torch.set_num_threads(settings.compute.threads)
    code, scratch = settings.model.trust_remote_code, args.output.parent
    scratch.mkdir(parents=True, exist_ok=True)
    record = check_model(args.model, settings.compute.device, code, scratch)
    write_json(args.output, record)
    done(args.output, f"read alike, {record['difference']:.2g} nats a token apart at most")


if __name__ == "__main__":
    run(main)
