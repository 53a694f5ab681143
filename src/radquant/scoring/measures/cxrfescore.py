"""CXRFEScore: facts by a trained extractor, compared by their embeddings (Messina et al. 2024)."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from radquant.scoring.measures import folders
from radquant.scoring.measures.kind import Loaded, Pairs
from radquant.scoring.metrics.kind import About, Column

PACKAGE = "cxrfescore"
ENVIRONMENT = "judges"
FOLDERS = {
    "pamessina/CXRFE": "pamessina/CXRFE",
    "pamessina/T5FactExtractor": "pamessina/T5FactExtractor",
    "nltk_data": "NLTK's punkt and punkt_tab",
}
AT_ONCE = 32
ABOUT = About(
    columns=(Column("cxrfescore", "CXRFEScore", range=(-1, 1)),),
    citation="Messina et al. (2024), by cxrfescore 0.2.4",
    group="model judge",
    remark="CXRFEScore is 0 where a text holds no fact.",
)
on = folders.on


def check(settings: Mapping[str, Any]) -> None:
    folders.check("cxrfescore", FOLDERS, settings, code=True)


def load(settings: Mapping[str, Any], threads: int) -> Loaded:
    directory = folders.check("cxrfescore", FOLDERS, settings, code=True)
    device = folders.begin(threads)
    import nltk

    nltk.data.path[:] = [str(directory / "nltk_data")]
    from cxrfescore import CXRFEScore

    with contextlib.chdir(directory):  # the package's names of models are folders there
        # Its cache would hold report text in the user's home.
        scorer = CXRFEScore(device=device, use_cache=False, num_workers=0)

    def measure(pairs: Pairs) -> Iterator[tuple[float]]:
        for start in range(0, len(pairs), AT_ONCE):
            chunk = pairs[start : start + AT_ONCE]
            found = scorer.compute([output for _, output in chunk], [text for text, _ in chunk])
            for value in found["per_pair_similarity"]:
                yield (min(1.0, max(-1.0, float(value))),)

    return Loaded(folders.identity(PACKAGE, FOLDERS, directory), measure, (0.0,))
