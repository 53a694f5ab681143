"""GREEN: errors and matched findings, counted by a language model (Ostmeier et al. 2024).

The answers are made and read by RadEval's class GREEN. An answer that cannot be read counts as 0,
as there, and is counted here.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from radquant.scoring.measures import folders
from radquant.scoring.measures.kind import Loaded, Pairs
from radquant.scoring.metrics.kind import About, Column

PACKAGE = "radeval"
ENVIRONMENT = "llm-judges"
FOLDERS = {"GREEN-radllama2-7b": "StanfordAIMI/GREEN-radllama2-7b"}
AT_ONCE = 8
ABOUT = About(
    columns=(
        Column("green", "GREEN"),
        Column("green_unread", "GREEN's unread answers", better="less", table=False),
    ),
    citation="Ostmeier et al. (2024), by radeval 2.2.1",
    group="model judge",
    remark="An answer of GREEN that cannot be read counts as 0; their share is said, too.",
)
PARTS = ("[Clinically Significant Errors]:", "[Matched Findings]:")
on = folders.on


def check(settings: Mapping[str, Any]) -> None:
    folders.check("green", FOLDERS, settings)


def load(settings: Mapping[str, Any], threads: int) -> Loaded:
    directory = folders.check("green", FOLDERS, settings)
    device = folders.begin(threads)
    os.environ["HF_DATASETS_CACHE"] = os.devnull  # report text stays in memory
    import nltk

    nltk.download = lambda *_, **__: False  # the package asks for data at its import
    from radeval.metrics.green_score.green import GREEN

    scorer = GREEN(str(directory / "GREEN-radllama2-7b"), cpu=device == "cpu", num_gpus=1)

    def measure(pairs: Pairs) -> Iterator[tuple[float, float]]:
        for start in range(0, len(pairs), AT_ONCE):
            chunk = pairs[start : start + AT_ONCE]
            _, _, found, _ = scorer([text for text, _ in chunk], [output for _, output in chunk])
            for value, answer in zip(found, scorer.completions, strict=True):
                unread = value is None or not all(part in answer for part in PARTS)
                yield (0.0 if value is None else float(value), float(unread))

    return Loaded(folders.identity(PACKAGE, FOLDERS, directory), measure, None)
