"""Likelihoods of the same references under two models: their difference, and how sure it is."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radquant import statistics
from radquant.errors import UserError
from radquant.files import read_table

RESAMPLES = 10_000
CONFIDENCE = 0.95


def read_nll(path: Path, like: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return id, nll and tokens; raises UserError if the reports are not those of `like`."""
    table = read_table(path, require=["id", "nll", "tokens"])
    if like is not None and not table[["id", "tokens"]].equals(like[["id", "tokens"]]):
        raise UserError(f"{path} is of other reports than the original's; measure them anew")
    return table


def ratio(differences: np.ndarray, tokens: np.ndarray) -> float:
    """Nats per token: the sum of the reports' NLL differences over the sum of their tokens."""
    return float(differences.sum() / tokens.sum())


def linearised(differences: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """One value per report whose mean is the ratio and whose spread is the ratio's.

    Both sums vary with the reports, longer references having larger differences. To first order
    (the delta method) the ratio varies as the mean of these values does, float64 [reports].
    """
    estimate = ratio(differences, tokens)
    return estimate + (differences - estimate * tokens) / tokens.mean()


def compared(nll: np.ndarray, other: np.ndarray, tokens: np.ndarray) -> dict[str, Any]:
    """nll − other, both [reports] in nats, per token, with intervals over the reports."""
    d = nll - other
    found = statistics.bootstrap_interval(linearised(d, tokens), RESAMPLES, CONFIDENCE, seed=0)
    own = d / tokens
    of_reports = statistics.bootstrap_interval(own, RESAMPLES, CONFIDENCE, seed=0)
    return {
        "difference": ratio(d, tokens),
        "low": found.low,
        "high": found.high,
        "of_reports": {
            "difference": float(own.mean()),
            "low": of_reports.low,
            "high": of_reports.high,
        },
    }


def perplexity(nll: np.ndarray, tokens: np.ndarray) -> float:
    return float(np.exp(nll.sum() / tokens.sum()))


def with_interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; the first two columns are words."""
    rule = "|---|---|" + "---:|" * (len(head) - 2)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])
