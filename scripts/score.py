"""Score the outputs of one system against the references and the original model's outputs."""

import argparse

from radquant.cli import run
from radquant.files import write_table
from radquant.instructions import read_template
from radquant.scoring.metrics.columns import levels
from radquant.scoring.scores import score
from radquant.settings import stages
from radquant.settings.options import parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", required=True, help="name of the precision or baseline")
    parser.add_argument("--eval", required=True, help="eval.csv, the evaluation reports")
    parser.add_argument("--reference", required=True, help="annotations of the references (.jsonl)")
    parser.add_argument(
        "--generations", required=True, nargs="+", help="the system's outputs, all shards"
    )
    parser.add_argument(
        "--annotations", required=True, nargs="+", help="annotations of the outputs, all shards"
    )
    parser.add_argument(
        "--original-generations",
        required=True,
        nargs="+",
        help="outputs of the original model, against which fidelity and changes are measured",
    )
    parser.add_argument(
        "--original-annotations",
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
    options, settings = parse(parser, stages.SCORE)
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
    print(
        f"{options.system}: {len(scores)} reports, "
        + ", ".join(f"{level} {value:.4f}" for level, value in means.items())
    )


if __name__ == "__main__":
    run(main)
