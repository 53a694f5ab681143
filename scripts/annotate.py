"""Annotate texts with clinical entities and relations, in RadGraph's schema."""

import argparse
from collections.abc import Sequence
from typing import Any

from radquant import registry
from radquant.cli import done, new_parser, progress, run
from radquant.files import read_table, write_jsonl
from radquant.scoring import annotation_cache, records
from radquant.scoring.language import check_language
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/annotate.py --texts results/data/eval.csv \
    --column impression --annotator lexicon --output annotations.jsonl"""


def main() -> None:
    options, settings = arguments()
    ids, texts = records.read_texts(options.texts, options.column)
    if settings.scoring.language != "any":
        require_english(options.texts, (options.column, *settings.task.inputs))
    distinct = records.distinct(texts)
    # This may run in an environment of its own, where only this annotator can be loaded.
    kind = registry.load_kind(registry.ANNOTATORS, settings.scoring.annotator)
    annotator = kind.load(settings.scoring.own(), settings.compute.threads)
    annotated = annotation_cache.annotate(annotator, distinct, options.cache)
    found = dict(progress(annotated, "annotate", len(distinct), "texts"))
    write_jsonl(options.output, records.build(ids, texts, annotator.identity, found.__getitem__))
    done(options.output, f"{len(ids)} texts annotated by {settings.scoring.annotator}")


def require_english(path: str, columns: Sequence[str]) -> None:
    """Raise UserError where one of the columns that the table has is not English."""
    known = read_table(path).columns
    for column in dict.fromkeys(columns):
        if column in known:
            ids, texts = records.read_texts(path, column)
            where = f"{path}, column {column!r}"
            check_language(ids, texts, where, each=column == columns[0])


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="where RadGraph's annotations are kept by text and model, and taken from; it holds "
        "report text, as --output does",
    )
    parser.add_argument("--texts", required=True, help="table with an id column (.csv, .parquet)")
    parser.add_argument("--column", required=True, help="column of --texts to annotate")
    parser.add_argument("--output", required=True, help="annotations to write (.jsonl)")
    return parse(parser, stages.ANNOTATE)


if __name__ == "__main__":
    run(main)
