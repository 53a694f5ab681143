"""Annotate texts with clinical entities and relations, in RadGraph's schema."""

import argparse
from collections.abc import Iterable

from radquant.cli import progress, run
from radquant.files import write_jsonl
from radquant.scoring import records


def main() -> None:
    options = parse()
    ids, texts = records.read_texts(options.texts, options.column)
    if options.annotator == "lexicon":
        from radquant.scoring import lexicon

        identity, annotate = lexicon.identity(), lexicon.annotate
    else:
        # Runs in its own environment (envs/radgraph.txt), where only this import works.
        from radquant.scoring import radgraph

        model = radgraph.load(
            options.radgraph_model,
            options.radgraph_directory,
            options.radgraph_revision,
            options.threads,
        )
        identity, annotate = model.identity, model.annotate

    def with_progress(distinct: list[str]) -> Iterable[str]:
        return progress(distinct, "annotate", len(distinct), "texts")

    write_jsonl(options.output, records.build(ids, texts, identity, annotate, with_progress))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--annotator",
        required=True,
        choices=("lexicon", "radgraph"),
        help="lexicon: rules and word lists, offline; radgraph: the official package",
    )
    parser.add_argument(
        "--radgraph-model",
        choices=("radgraph", "radgraph-xl", "modern-radgraph-xl"),
        default="radgraph-xl",
        help="which published RadGraph model (default: %(default)s)",
    )
    parser.add_argument(
        "--radgraph-directory",
        help="local folder with MODEL.tar.gz, or with MODEL/ holding config.json, vocabulary/ and "
        "weights.th, and with the text encoder's configuration and tokenizer; without it the "
        "model comes from the Hugging Face hub",
    )
    parser.add_argument(
        "--radgraph-revision",
        default="main",
        help="revision of the hub repository, used without --radgraph-directory (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="CPU threads of the RadGraph model (default: %(default)s)",
    )
    parser.add_argument("--texts", required=True, help="table with an id column (.csv, .parquet)")
    parser.add_argument("--column", required=True, help="column of --texts to annotate")
    parser.add_argument("--output", required=True, help="annotations to write (.jsonl)")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
