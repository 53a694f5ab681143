"""Check that the original model is the same to transformers and to the quantizer."""

import argparse
import os
from pathlib import Path
from typing import Any

from radquant.cli import run
from radquant.settings import stages
from radquant.settings.options import parse


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="Hugging Face model directory")
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
    write_json(args.output, check_model(args.model, settings.compute.device, code, scratch))


if __name__ == "__main__":
    run(main)
