"""BLEU-2 of an output against the reference: words and pairs of words, weighted equally.

It is that of Yu et al. (2023), who take `fast_bleu` on lower-case words cut at blanks, a full stop
being one of its own. Their program is rajpurkarlab/CXR-Report-Metric at 208c45c, `prep_reports`.
`fast_bleu` 0.0.90 gives what nltk's `sentence_bleu` gives with its smoothing `method1` (Chen &
Cherry 2014): an output that shares no pair of words counts 0.1 pairs. One that shares no word
scores 0.
"""

from functools import cache
from typing import Any

from radquant.scoring.metrics.kind import About, Column, Pair

WEIGHTS = (0.5, 0.5)

ABOUT = About(
    columns=(Column("bleu_2", "BLEU-2", table=False, difference=False, runs=False),),
    citation="Papineni et al. (2002), by nltk as Yu et al. (2023)",
    group="overlap",
)


def measure(pair: Pair) -> tuple[float]:
    reference, output = words(pair.reference), words(pair.output)
    if not output:
        return (0.0,)
    sentence_bleu, smoothing = _nltk()
    return (float(sentence_bleu([reference], output, WEIGHTS, smoothing)),)


def words(text: str) -> list[str]:
    return [word for word in text.lower().replace(".", " .").split(" ") if word]


@cache
def _nltk() -> tuple[Any, Any]:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    return sentence_bleu, SmoothingFunction().method1
