"""Quantize the weights of a model with AutoAWQ; runs in the environment of envs/autoawq.txt."""

import argparse

from radquant.cli import run
from radquant.quantization import by_autoawq, job
from radquant.settings import stages
from radquant.settings.options import parse
from radquant.settings.recipe import recipe_of
from radquant.settings.tool_limits import METHODS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    job.add_arguments(parser, other_package=True)
    args, settings = parse(parser, stages.QUANTIZE_AUTOAWQ)
    recipe = recipe_of({"method": METHODS["autoawq"][0], **settings.checkpoint.model_dump()})
    by_autoawq.quantize(job.job_of(args, settings), recipe)


if __name__ == "__main__":
    run(main)
