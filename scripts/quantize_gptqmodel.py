"""Quantize the weights of a model with GPTQModel; runs in the environment of envs/gptqmodel.txt."""

import argparse

from radquant.cli import run
from radquant.quantization import by_gptqmodel, job
from radquant.settings import stages
from radquant.settings.options import parse
from radquant.settings.recipe import recipe_of
from radquant.settings.tool_limits import METHODS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    job.add_arguments(parser, other_package=True)
    args, settings = parse(parser, stages.QUANTIZE_GPTQMODEL)
    given = settings.checkpoint.model_dump()
    recipe = recipe_of({"method": METHODS["gptqmodel"][0], "clip": False, **given})
    by_gptqmodel.quantize(job.job_of(args, settings), recipe)


if __name__ == "__main__":
    run(main)
