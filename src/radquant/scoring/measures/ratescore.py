"""RaTEScore: entities by a trained model, compared by their embeddings (Zhao et al. 2024)."""

from collections.abc import Iterator, Mapping
from typing import Any

from radquant.scoring.measures import folders
from radquant.scoring.measures.kind import Loaded, Pairs
from radquant.scoring.metrics.kind import About, Column

PACKAGE = "RaTEScore"
ENVIRONMENT = "ratescore"
FOLDERS = {
    "RaTE-NER-Deberta": "Angelakeke/RaTE-NER-Deberta",
    "BioLORD-2023-C": "FremyCompany/BioLORD-2023-C",
}
ABOUT = About(
    columns=(Column("ratescore", "RaTEScore", range=(-1, 1)),),
    citation="Zhao et al. (2024), by RaTEScore 0.6.0",
    group="model judge",
    remark=(
        "RaTEScore is 0.5 by its definition where a text has no entity; an output without a "
        "sentence has 0 here."
    ),
)
on = folders.on


def check(settings: Mapping[str, Any]) -> None:
    folders.check("ratescore", FOLDERS, settings)


def load(settings: Mapping[str, Any], threads: int) -> Loaded:
    directory = folders.check("ratescore", FOLDERS, settings)
    device = folders.begin(threads)
    from loguru import logger

    # medspacy, which splits sentences for the package, logs the texts.
    logger.remove()
    from RaTEScore import RaTEScore

    scorer = RaTEScore(
        bert_model=str(directory / "RaTE-NER-Deberta"),
        eval_model=str(directory / "BioLORD-2023-C"),
        use_gpu=device == "cuda",
        batch_size=8,
    )

    def measure(pairs: Pairs) -> Iterator[tuple[float]]:
        # One pair at a time: of several, the package drops those without a sentence and gives each
        # of the others its neighbour's score.
        for reference, output in pairs:
            found = scorer.compute_score([output], [reference]) if output.strip() else []
            yield (float(found[0]) if found else 0.0,)

    return Loaded(folders.identity(PACKAGE, FOLDERS, directory), measure, (0.0,))
