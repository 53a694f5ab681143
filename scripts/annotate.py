"""Annotate texts with clinical entities and relations, in RadGraph's schema."""

import argparse
from collections.abc import Iterator
from typing import Any

from radquant.cli import progress, run
from radquant.errors import UserError
from radquant.files import write_jsonl
from radquant.scoring import records
from radquant.scoring.annotation_cache import Cache


def main() -> None:
    options = parse()
    ids, texts = records.read_texts(options.texts, options.column)
    distinct = records.distinct(texts)
    if options.annotator == "lexicon":
        from radquant.scoring import lexicon

        identity = lexicon.identity()
        annotated: Iterator[tuple[str, dict[str, Any]]] = (
            (text, lexicon.annotate(text)) for text in distinct
        )
    else:
        identity, annotated = radgraph_annotations(options, distinct)
    found = dict(progress(annotated, "annotate", len(distinct), "texts"))
    write_jsonl(options.output, records.build(ids, texts, identity, found.__getitem__))


def radgraph_annotations(
    options: argparse.Namespace, distinct: list[str]
) -> tuple[str, Iterator[tuple[str, dict[str, Any]]]]:
    # Runs in its own environment (envs/radgraph.txt), where only this import works.
    from radquant.scoring import radgraph

    pinned = options.radgraph_revision and options.radgraph_encoder_revision
    if not (options.radgraph_directory or pinned):
        raise UserError(
            "the hub's model needs --radgraph-revision and --radgraph-encoder-revision, so that it "
            "stays the same; or give a local folder with --radgraph-directory"
        )
    model = radgraph.load(
        options.radgraph_model,
        options.radgraph_directory,
        options.radgraph_revision,
        options.radgraph_encoder_revision,
        options.threads,
    )
    if not options.cache:
        return model.identity, model.annotate(distinct)
    return model.identity, Cache(options.cache, model.key).annotate(distinct, model.annotate)


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
        help="commit of the hub repository; needed without --radgraph-directory",
    )
    parser.add_argument(
        "--radgraph-encoder-revision",
        help="commit of the text encoder on the hub; needed without --radgraph-directory",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="where RadGraph's annotations are kept by text and model, and taken from; it holds "
        "report text, as --output does",
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
