"""Quantize the weights of a model with llama.cpp's own quantizer, to a GGUF file."""

import argparse
from pathlib import Path

from radquant.cli import run
from radquant.quantization import job
from radquant.settings import stages
from radquant.settings.llama_cpp import ByLlamaCpp
from radquant.settings.options import parse
from radquant.settings.precision import LLAMA_CPP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    job.add_arguments(parser)
    parser.add_argument(
        "--tool-python",
        type=Path,
        required=True,
        metavar="FILE",
        help="the Python of an environment made of envs/llama-cpp.txt",
    )
    args, settings = parse(parser, stages.QUANTIZE_LLAMA_CPP)

    from radquant.quantization import by_llama_cpp

    asked = ByLlamaCpp(tool=LLAMA_CPP, **settings.checkpoint.model_dump())
    by_llama_cpp.quantize(job.job_of(args, settings), asked, args.tool_python)


if __name__ == "__main__":
    run(main)
