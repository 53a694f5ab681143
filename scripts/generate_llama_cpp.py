"""Write and score tokens with llama.cpp, in its environment, as engine llama.cpp does.

Tasks are lines of JSON on stdin, and answers lines of JSON on stdout.
"""

import argparse

from radquant.cli import new_parser, run
from radquant.generation.llama_cpp_decoding import serve

EXAMPLE = r"""results/venvs/llama-cpp/bin/python scripts/generate_llama_cpp.py \
    < tasks.jsonl > answers.jsonl"""


def arguments() -> argparse.Namespace:
    return new_parser(__doc__, EXAMPLE).parse_args()


def main() -> None:
    arguments()
    serve()


if __name__ == "__main__":
    run(main)
