"""CRIMSON: findings weighed by what follows from them, judged by a language model (2025).

The published judge is a MedGemma 4B of its authors. It was trained without the guidelines that the
package puts into other models' prompts, and they are left out here as there.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

from radquant.scoring.measures import folders
from radquant.scoring.measures.kind import Loaded, Pairs
from radquant.scoring.metrics.kind import About, Column

PACKAGE = "crimson-score"
ENVIRONMENT = "llm-judges"
FOLDERS = {"medgemma-4b-it-crimson": "rajpurkarlab/medgemma-4b-it-crimson"}
ABOUT = About(
    columns=(
        Column("crimson", "CRIMSON", range=(-1, 1)),
        Column("crimson_unread", "CRIMSON's unread answers", better="less", table=False),
    ),
    citation="CRIMSON, by crimson-score 0.2.0",
    group="model judge",
    remark="An answer of CRIMSON that cannot be read counts as -1; their share is said, too.",
)
on = folders.on


def check(settings: Mapping[str, Any]) -> None:
    folders.check("crimson", FOLDERS, settings)


def load(settings: Mapping[str, Any], threads: int) -> Loaded:
    directory = folders.check("crimson", FOLDERS, settings)
    device = folders.begin(threads)
    from CRIMSON import CRIMSONScore

    scorer = CRIMSONScore("hf", str(directory / "medgemma-4b-it-crimson"), device)

    def measure(pairs: Pairs) -> Iterator[tuple[float, float]]:
        for reference, output in pairs:
            # What it prints of an answer that cannot be read is text of a report.
            with contextlib.redirect_stdout(io.StringIO()):
                (found,) = scorer.evaluate_batch([reference], [output], include_guidelines=False)
            yield (-1.0, 1.0) if found is None else (float(found["crimson_score"]), 0.0)

    return Loaded(folders.identity(PACKAGE, FOLDERS, directory), measure, None)
