"""Quantize the weights of a model with GPTQModel; runs in the environment of envs/gptqmodel.txt."""

import argparse

from radquant.cli import run
from radquant.quantization import by_gptqmodel, other_packages
from radquant.settings.recipe import GROUP_SIZES, Recipe


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    other_packages.add_arguments(parser)
    add = parser.add_argument
    add(
        "--bits",
        type=int,
        choices=[2, 3, 4, 8],
        default=4,
        help="bits of a weight (%(default)s)",
    )
    add(
        "--group-size",
        type=int,
        choices=list(GROUP_SIZES),
        default=128,
        help="input channels that share a scale; -1 for all of a row (%(default)s)",
    )
    add("--symmetric", action="store_true", help="a grid about 0 instead of one with zero points")
    add(
        "--desc-act",
        action="store_true",
        help="form the groups in order of activation, which needs a group index",
    )
    add(
        "--damp-percent",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of the mean diagonal added to the Gram matrix (%(default)s)",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    recipe = Recipe(
        "gptq",
        args.bits,
        args.group_size,
        zero_point=not args.symmetric,
        rounding="gptq",
        clip=False,
        desc_act=args.desc_act,
        damp_percent=args.damp_percent,
    )
    by_gptqmodel.quantize(other_packages.job_of(args), recipe)


if __name__ == "__main__":
    run(main)
