"""ROUGE-L of an output, against the reference and against the original model's output.

It is the F-measure with stemming of the package `rouge_score`. Two identical outputs have ROUGE-L 1
even when they hold no word.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any

from radquant.scoring.metrics.kind import About, Column, Pair

STEMS = 100_000  # words whose stems are kept: a broken model's may all be different

ABOUT = About(
    columns=(
        Column("rouge_l", "ROUGE-L", difference=False),
        Column(
            "rouge_l_original",
            "ROUGE-L against the original",
            table=False,
            difference=False,
            runs=False,
            ruler=False,
        ),
    ),
    citation="Lin (2004), by rouge_score 0.1.2",
    group="overlap",
)


def measure(pair: Pair) -> tuple[float, float]:
    to_original = 1.0 if pair.identical else _rouge_l(pair.original, pair.output)
    return _rouge_l(pair.reference, pair.output), to_original


@contextmanager
def without_scipy() -> Iterator[None]:
    """Let nltk be imported without scipy.stats, which takes a quarter of all that scoring does.

    It is for tests of word pairs and for aligning translations, and nltk can do without.
    """
    if "scipy.stats" in sys.modules:
        yield
        return
    sys.modules["scipy.stats"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["scipy.stats"]


@cache
def _rouge() -> Any:
    """The scorer with its own tokenizer, which stems each different word once."""
    with without_scipy():
        from nltk.stem.porter import PorterStemmer
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenize import tokenize

    stemmer = SimpleNamespace(stem=lru_cache(STEMS)(PorterStemmer().stem))
    tokenizer = SimpleNamespace(tokenize=lambda text: tokenize(text, stemmer))
    return RougeScorer(["rougeL"], tokenizer=tokenizer)


def _rouge_l(target: str, prediction: str) -> float:
    return float(_rouge().score(target, prediction)["rougeL"].fmeasure)
