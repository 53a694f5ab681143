"""Quantize the weights of a model with AutoAWQ; runs in the environment of envs/autoawq.txt."""

import argparse
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.model_files import sizes
from radquant.quantization import by_autoawq, job
from radquant.settings import stages
from radquant.settings.options import parse
from radquant.settings.recipe import recipe_of
from radquant.settings.tool_limits import METHODS

EXAMPLE = r"""results/venvs/autoawq/bin/python scripts/quantize_autoawq.py \
    --model models/SmolLM2 --calibration samples.parquet --bits 4 \
    --group-size 64 --output models/SmolLM2-autoawq"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    job.add_arguments(parser, other_package=True)
    return parse(parser, stages.QUANTIZE_AUTOAWQ)


def main() -> None:
    args, settings = arguments()
    recipe = recipe_of({"method": METHODS["autoawq"][0], **settings.checkpoint.model_dump()})
    by_autoawq.quantize(job.job_of(args, settings), recipe)
    done(args.output, sizes(args.output, args.model, "the original"))


if __name__ == "__main__":
    run(main)
