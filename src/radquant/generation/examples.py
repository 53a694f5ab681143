"""The few-shot examples that stand before each report in its prompt."""

from typing import Any

import pandas as pd

from radquant.generation.nearest_examples import nearest_examples
from radquant.instructions import Row, columns_of, draw_examples
from radquant.settings.generation import NEAREST


def examples_of(
    train: list[dict[str, Any]],
    reports: list[dict[str, Any]],
    template: str,
    target: str,
    wanted: Any,
    seed: int,
) -> list[list[Row]]:
    """The few-shot examples of each report. wanted: section `generation`."""
    columns = columns_of(template)
    how = (target, wanted.examples, wanted.examples_max_words, seed)
    if wanted.examples_by == NEAREST:
        return nearest_examples(train, reports, columns, *how)
    drawn = draw_examples(train, columns, *how)
    return [drawn for _ in reports]


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one {column: value} per row."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
