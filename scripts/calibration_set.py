"""Draw the texts on which quantization is calibrated from the training split."""

import argparse
import os
from pathlib import Path

from radquant.cli import run
from radquant.files import read_table, sha256_text, write_json, write_table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="model whose tokenizer is used")
    add("--train", type=Path, required=True, metavar="CSV", help="training reports")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", type=Path, metavar="FILE", help="template with {column} fields")
    prompt.add_argument("--prompt-text", metavar="TEXT", help="the template itself")
    add("--target", default="impression", metavar="COLUMN", help="the reference (%(default)s)")
    add("--samples", type=int, default=128, metavar="N", help="number of texts (%(default)s)")
    add("--max-tokens", type=int, default=512, metavar="L", help="most tokens each (%(default)s)")
    add("--seed", type=int, default=0, help="seed of the draw (%(default)s)")
    add("--trust-remote-code", action="store_true", help="run Python code that the model brings")
    add("--output", type=Path, required=True, metavar="PARQUET", help="the texts and their tokens")
    add("--record", type=Path, required=True, metavar="JSON", help="their counts")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"

    from radquant import calibration, prompts

    template = prompts.read_template(args.prompt, args.prompt_text)
    train = read_table(args.train, require=["id"])
    prompts.check_template(template, list(train.columns), args.target)

    from radquant.models import load_tokenizer

    samples = calibration.draw(
        load_tokenizer(args.model, args.trust_remote_code),
        train.to_dict("records"),
        template,
        args.target,
        args.samples,
        args.max_tokens,
        args.seed,
    )
    write_table(args.output, calibration.table(samples))
    record = calibration.record(samples, sha256_text(template), args.max_tokens, args.seed)
    write_json(args.record, record)


if __name__ == "__main__":
    run(main)
