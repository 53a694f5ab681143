"""Write and score tokens with llama.cpp, in its environment, as engine llama.cpp does.

Tasks are lines of JSON on stdin, and answers lines of JSON on stdout.
"""

import argparse

from radquant.cli import run
from radquant.generation.llama_cpp_decoding import serve


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    serve()


if __name__ == "__main__":
    run(main)
