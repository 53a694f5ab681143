"""Decode prompts of token ids with vLLM, in vLLM's environment, as engine vllm does."""

import argparse
from pathlib import Path

from radquant.cli import done, new_parser, run, size_of
from radquant.generation.vllm_decoding import decode_job

EXAMPLE = r"""results/venvs/vllm/bin/python scripts/generate_vllm.py \
    --job job.json --output tokens.json"""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--job", type=Path, required=True, metavar="JSON", help="model, prompts, what ends them")
    add("--output", type=Path, required=True, metavar="JSON", help="tokens and measures to write")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    decode_job(args.job, args.output)
    done(args.output, size_of(args.output))


if __name__ == "__main__":
    run(main)
