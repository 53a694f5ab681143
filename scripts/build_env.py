"""Build a virtual environment for a tool that cannot share this package's own environment."""

import argparse

from radquant.cli import run
from radquant.environments import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requirements", required=True, help="pip file, such as envs/radgraph.txt")
    parser.add_argument(
        "--output", required=True, help="directory of the environment; ready.json is written last"
    )
    options = parser.parse_args()
    build(options.requirements, options.output)


if __name__ == "__main__":
    run(main)
