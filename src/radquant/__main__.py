"""The command `radquant`."""

import argparse
from pathlib import Path

from radquant import __version__
from radquant.cli import run
from radquant.laying_out import lay_out


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="radquant",
        description="Measure what quantizing a radiology report model costs clinically.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"radquant {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    init = commands.add_parser(
        "init",
        help="lay out the workflow in a new folder",
        description="Lay out the workflow in a folder that is new or empty: Snakefile, rules, "
        "scripts, configurations, prompts and code. `snakemake` runs it there.",
        epilog="example: radquant init my-run && cd my-run && snakemake --cores 1",
        allow_abbrev=False,
    )
    init.add_argument("folder", type=Path, metavar="FOLDER", help="where the workflow will lie")
    return parser.parse_args()


def main() -> None:
    folder = arguments().folder
    lay_out(folder)
    print(f"The workflow lies in {folder}. Run it there: snakemake --cores 1")


def command() -> None:
    run(main)


if __name__ == "__main__":
    command()
