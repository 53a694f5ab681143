"""Which of the evaluation reports are written; the likelihood of references is over all of them."""

from pathlib import Path

import pandas as pd

from radquant.errors import UserError


def written_reports(table: pd.DataFrame, count: int | None, path: str | Path) -> pd.DataFrame:
    """The first `count` rows of eval.csv, all for None.

    Its order is that of the random draw, so these are a random part. They are the very reports that
    an evaluation of no more than `count` would have.
    """
    if count is None:
        return table
    if not 1 <= count <= len(table):
        raise UserError(
            f"{count} reports of {path} were asked for, and it holds {len(table)}; ask for fewer"
        )
    return table.iloc[:count]
