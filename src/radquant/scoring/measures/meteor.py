"""METEOR of an output against the reference, by nltk, with WordNet from a local folder.

Banerjee & Lavie (2005), with nltk's parameters (alpha 0.9, beta 3, gamma 0.5): words match as they
stand, by stem, and as synonyms. Words are cut by nltk's `wordpunct_tokenize`.
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.failures import loading
from radquant.files import sha256_file
from radquant.scoring.measures.kind import Loaded, Pairs
from radquant.scoring.metrics.kind import About, Column

ABOUT = About(
    columns=(Column("meteor", "METEOR"),),
    citation="Banerjee & Lavie (2005), by nltk",
    group="overlap",
)
ENVIRONMENT = None
PARTS = ("adj", "adv", "noun", "verb")
FILES = ("lexnames", *(f"{kind}.{part}" for kind in ("index", "data") for part in PARTS))


def on(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("directory"))


def check(settings: Mapping[str, Any]) -> None:
    folder = Path(settings["directory"])
    lost = [name for name in FILES if not (folder / name).is_file()]
    if lost:
        raise UserError(
            f"scoring.meteor.directory is {folder}, which has no {lost[0]}; name the folder of "
            "WordNet's database files (nltk's corpora/wordnet), or set it to null"
        )


def load(settings: Mapping[str, Any], threads: int) -> Loaded:
    check(settings)
    import nltk.data
    from nltk.corpus.reader import WordNetCorpusReader

    class English(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            """Only other languages need a map, for which it would look for a second WordNet."""

    folder = Path(settings["directory"]).resolve()
    nltk.data.path.append(str(folder))  # it opens no file elsewhere
    with warnings.catch_warnings(), loading(folder, "take WordNet's published files"):
        warnings.simplefilter("ignore")  # of other languages than English
        wordnet = English(str(folder), None)
        wordnet.synsets("heart")  # damage shows at the first look
    digest = sha256_file(folder / "data.noun")[:12]

    def measure(pairs: Pairs) -> Iterator[tuple[float, ...]]:
        from nltk.tokenize import wordpunct_tokenize
        from nltk.translate.meteor_score import single_meteor_score

        for reference, output in pairs:
            words = wordpunct_tokenize(reference), wordpunct_tokenize(output)
            yield (float(single_meteor_score(*words, wordnet=wordnet)),)

    return Loaded(f"nltk {nltk.__version__}, data.noun (sha256 {digest})", measure, (0.0,))
