"""Quantize the weights of a model with llm-compressor; runs in the environment of
envs/llmcompressor.txt."""

import argparse
import os

os.environ.setdefault("TQDM_DISABLE", "1")  # read once, when tqdm is imported: bars fill the logs

from radquant.cli import run
from radquant.quantization import by_llmcompressor, job
from radquant.settings import stages
from radquant.settings.options import parse
from radquant.settings.recipe import recipe_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    job.add_arguments(parser, other_package=True)
    args, settings = parse(parser, stages.QUANTIZE_LLMCOMPRESSOR)
    recipe = recipe_of({"clip": False, **settings.checkpoint.model_dump(exclude_unset=True)})
    by_llmcompressor.quantize(job.job_of(args, settings), recipe)


if __name__ == "__main__":
    run(main)
