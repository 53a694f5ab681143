"""Quantize the weights of a model with AutoAWQ; runs in the environment of envs/autoawq.txt."""

import argparse

from radquant.cli import run
from radquant.quantization import by_autoawq, other_packages
from radquant.settings.recipe import GROUP_SIZES, Recipe


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    other_packages.add_arguments(parser)
    parser.add_argument(
        "--bits", type=int, default=4, help="bits of a weight; AutoAWQ has 4 only (%(default)s)"
    )
    parser.add_argument(
        "--group-size",
        type=int,
        choices=list(GROUP_SIZES),
        default=128,
        help="input channels that share a scale; AutoAWQ has no -1 (%(default)s)",
    )
    parser.add_argument(
        "--symmetric", action="store_true", help="refused: AutoAWQ has no symmetric grid"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    recipe = Recipe("awq", args.bits, args.group_size, zero_point=not args.symmetric)
    by_autoawq.quantize(other_packages.job_of(args), recipe)


if __name__ == "__main__":
    run(main)
