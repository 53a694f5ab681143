"""Quantize the weights of a model with llm-compressor; runs in the environment of
envs/llmcompressor.txt."""

import argparse
import os
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # read once, when tqdm is imported: bars fill the logs

from radquant.cli import done, new_parser, run
from radquant.model_files import sizes
from radquant.quantization import by_llmcompressor, job
from radquant.settings import stages
from radquant.settings.options import parse
from radquant.settings.recipe import recipe_of

EXAMPLE = r"""results/venvs/llmcompressor/bin/python scripts/quantize_llmcompressor.py \
    --model models/SmolLM2 --calibration samples.parquet --method gptq \
    --bits 4 --group-size 64 --output models/SmolLM2-llmcompressor"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    job.add_arguments(parser, other_package=True)
    return parse(parser, stages.QUANTIZE_LLMCOMPRESSOR)


def main() -> None:
    args, settings = arguments()
    recipe = recipe_of({"clip": False, **settings.checkpoint.model_dump(exclude_unset=True)})
    by_llmcompressor.quantize(job.job_of(args, settings), recipe)
    done(args.output, sizes(args.output, args.model, "the original"))


if __name__ == "__main__":
    run(main)
