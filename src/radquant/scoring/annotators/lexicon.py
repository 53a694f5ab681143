"""The rule-based annotator: word lists, no model, no network (`radquant.scoring.lexicon`)."""

from collections.abc import Iterator, Mapping
from typing import Any

from radquant.scoring import lexicon
from radquant.scoring.annotators.kind import Annotation, Loaded

MEASURE = "clinical F1 (lexicon)"
CAVEAT = (
    "The lexicon is a rule-based annotator. Its scores run higher than RadGraph's and are "
    "not to be compared with published RadGraph F1."
)
ENVIRONMENT = None
QUICK = True
SETTINGS = ()


def check(settings: Mapping[str, Any]) -> None:
    """There is nothing to set."""


def online(settings: Mapping[str, Any]) -> bool:
    return False


def load(settings: Mapping[str, Any], threads: int) -> Loaded:
    return Loaded(lexicon.identity(), _annotate)


def _annotate(texts: list[str]) -> Iterator[tuple[str, Annotation]]:
    for text in texts:
        yield text, lexicon.annotate(text)
