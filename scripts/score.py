"""Score the outputs of one system against the references and the original model's outputs."""

import argparse
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.files import write_table
from radquant.instructions import read_template
from radquant.meant import annotations
from radquant.scoring.metrics.columns import levels
from radquant.scoring.scores import score
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/score.py --system awq --eval eval.csv \
    --reference reference.jsonl --generations generated/awq.parquet \
    --annotations awq.jsonl \
    --original-generations generated/original.parquet \
    --original-annotations original.jsonl --prompt prompts/impression.txt \
    --output scores.parquet"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument("--system", required=True, help="name of the precision or baseline")
    parser.add_argument("--eval", required=True, help="eval.csv, the evaluation reports")
    parser.add_argument(
        "--reference",
        type=annotations,
        required=True,
        help="annotations of the references (.jsonl)",
    )
    parser.add_argument(
        "--generations", required=True, nargs="+", help="the system's outputs, all shards"
    )
    parser.add_argument(
        "--annotations",
        type=annotations,
        required=True,
        nargs="+",
        help="annotations of the outputs, all shards",
    )
    parser.add_argument(
        "--original-generations",
        required=True,
        nargs="+",
        help="outputs of the original model, against which fidelity and changes are measured",
    )
    parser.add_argument(
        "--original-annotations",
        type=annotations,
        required=True,
        nargs="+",
        help="annotations of the original model's outputs",
    )
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", help="the prompt's template, with {column} fields")
    prompt.add_argument("--prompt-text", help="the template itself")
    parser.add_argument(
        "--with-images",
        action="store_true",
        help="images were shown with the prompt, which then may use no column",
    )
    parser.add_argument("--output", required=True, help="scores to write (.parquet or .csv)")
    return parse(parser, stages.SCORE)


def main() -> None:
    options, settings = arguments()
    scores = score(
        options.eval,
        settings.task.target,
        options.reference,
        options.generations,
        options.annotations,
        options.original_generations,
        options.original_annotations,
        read_template(options.prompt, options.prompt_text),
        settings.generation.reports,
        options.with_images,
    )
    write_table(options.output, scores)
    means = scores[[level.name for level in levels()]].mean()
    told = ", ".join(f"{level} {value:.4f}" for level, value in means.items())
    done(options.output, f"{len(scores)} reports of {options.system}, F1 {told}")


if __name__ == "__main__":
    run(main)
