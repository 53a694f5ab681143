"""Build a virtual environment for a tool that cannot share this package's own environment."""

import argparse
from pathlib import Path

from radquant.cli import done, new_parser, run
from radquant.environments import build
from radquant.files import read_json

EXAMPLE = r"""python scripts/build_env.py --requirements envs/radgraph.txt \
    --output results/venvs/radgraph"""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument("--requirements", required=True, help="pip file, such as envs/radgraph.txt")
    parser.add_argument(
        "--output", required=True, help="directory of the environment; ready.json is written last"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    build(options.requirements, options.output)
    record = read_json(Path(options.output) / "ready.json")
    done(options.output, f"{len(record['packages'])} packages")


if __name__ == "__main__":
    run(main)
