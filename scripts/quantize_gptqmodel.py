"""Quantize the weights of a model with GPTQModel; runs in the environment of envs/gptqmodel.txt."""

import argparse

from radquant.cli import run
from radquant.quantization import by_gptqmodel, other_packages
from radquant.settings import stages
from radquant.settings.options import parse
from radquant.settings.recipe import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    other_packages.add_arguments(parser)
    args, settings = parse(parser, stages.QUANTIZE_GPTQMODEL)
    given = settings.checkpoint
    recipe = Recipe(
        method="gptq",
        bits=given.bits,
        group_size=given.group_size,
        zero_point=given.zero_point,
        clip=False,
        desc_act=given.desc_act,
        damp_percent=given.damp_percent,
    )
    by_gptqmodel.quantize(other_packages.job_of(args, settings), recipe)


if __name__ == "__main__":
    run(main)
