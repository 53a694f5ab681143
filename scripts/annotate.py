"""Annotate texts with clinical entities and relations, in RadGraph's schema."""

import argparse

from radquant import registry
from radquant.cli import progress, run
from radquant.files import write_jsonl
from radquant.scoring import annotation_cache, records


def main() -> None:
    options = parse()
    ids, texts = records.read_texts(options.texts, options.column)
    distinct = records.distinct(texts)
    # Perhaps in an environment of its own, where only this annotator can be loaded.
    kind = registry.load_kind(registry.ANNOTATORS, options.annotator)
    settings = {key: getattr(options, f"{options.annotator}_{key}") for key in kind.SETTINGS}
    annotator = kind.load(settings, options.threads)
    annotated = annotation_cache.annotate(annotator, distinct, options.cache)
    found = dict(progress(annotated, "annotate", len(distinct), "texts"))
    write_jsonl(options.output, records.build(ids, texts, annotator.identity, found.__getitem__))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--annotator",
        required=True,
        choices=tuple(registry.ANNOTATORS),
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
