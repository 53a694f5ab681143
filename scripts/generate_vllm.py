"""Decode prompts of token ids with vLLM, in vLLM's environment, as engine vllm does."""

import argparse
from pathlib import Path

from radquant.cli import run
from radquant.generation.vllm_decoding import decode_job


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--job", type=Path, required=True, metavar="JSON", help="model, prompts, what ends them")
    add("--output", type=Path, required=True, metavar="JSON", help="tokens and measures to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    decode_job(args.job, args.output)


if __name__ == "__main__":
    run(main)
