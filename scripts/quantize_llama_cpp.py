"""Quantize the weights of a model with llama.cpp's own quantizer, to a GGUF file."""

import argparse
from pathlib import Path
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.model_files import sizes
from radquant.quantization import job
from radquant.settings import stages
from radquant.settings.llama_cpp import ByLlamaCpp
from radquant.settings.options import parse
from radquant.settings.precision import LLAMA_CPP

EXAMPLE = r"""python scripts/quantize_llama_cpp.py --model models/SmolLM2 --type q4_k_m \
    --tool-python results/venvs/llama-cpp/bin/python \
    --output models/SmolLM2-q4"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    job.add_arguments(parser)
    parser.add_argument(
        "--tool-python",
        type=Path,
        required=True,
        metavar="FILE",
        help="the Python of an environment made of envs/llama-cpp.txt",
    )
    return parse(parser, stages.QUANTIZE_LLAMA_CPP)


def main() -> None:
    args, settings = arguments()

    from radquant.quantization import by_llama_cpp

    asked = ByLlamaCpp(tool=LLAMA_CPP, **settings.checkpoint.model_dump())
    by_llama_cpp.quantize(job.job_of(args, settings), asked, args.tool_python)
    done(args.output, sizes(args.output, args.model, "the original"))


if __name__ == "__main__":
    run(main)
