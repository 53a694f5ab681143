"""Quantize the weights of a model with AutoAWQ; runs in the environment of envs/autoawq.txt."""

import argparse

from radquant.cli import run
from radquant.quantization import by_autoawq, other_packages
from radquant.settings import stages
from radquant.settings.options import parse
from radquant.settings.recipe import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    other_packages.add_arguments(parser)
    args, settings = parse(parser, stages.QUANTIZE_AUTOAWQ)
    given = settings.checkpoint
    recipe = Recipe(
        method="awq",
        bits=given.bits,
        group_size=given.group_size,
        zero_point=given.zero_point,
    )
    by_autoawq.quantize(other_packages.job_of(args, settings), recipe)


if __name__ == "__main__":
    run(main)
