"""Systems without a model, which every table holds: a model that loses to them says nothing."""

from collections import Counter
from collections.abc import Sequence
from typing import cast

import pandas as pd

from radquant.corpus.splitting import unit_hash
from radquant.errors import UserError
from radquant.generation.nearest_examples import in_order, nearest_rows
from radquant.instructions import Row
from radquant.scoring import lexicon, rewards

CANDIDATES = 20
SAMPLE = 500


def copy_input(evaluation: pd.DataFrame, inputs: Sequence[str]) -> pd.DataFrame:
    """Return (id, output) where the output is the report's own input, several joined by a space.

    Empty where the input is an image alone.
    """
    rows = evaluation.to_dict("records")
    joined = [" ".join(filter(None, (row[name] for name in inputs))) for row in rows]
    return pd.DataFrame({"id": evaluation["id"].tolist(), "output": joined}, dtype="str")


def constant(evaluation: pd.DataFrame, train: pd.DataFrame, target: str, seed: int) -> pd.DataFrame:
    """Return (id, output) where every output is the best constant of the training split."""
    text = best_constant(train["id"].tolist(), train[target].tolist(), seed)
    return pd.DataFrame({"id": evaluation["id"].tolist(), "output": text}, dtype="str")


def nearest(
    evaluation: pd.DataFrame, train: pd.DataFrame, inputs: Sequence[str], target: str, seed: int
) -> pd.DataFrame:
    """Return (id, output) where the output is what the training report most like it says.

    That is the target of the report whose inputs' words are most like the report's own, as few-shot
    examples are chosen. It is never a report of the same patient. Empty where the input is an image
    alone.
    """
    outputs = [""] * len(evaluation)
    if inputs:
        reports, known = (cast("list[Row]", x.to_dict("records")) for x in (evaluation, train))
        rows = [row for row in in_order(known, seed) if row[target].strip()]
        found = [next(each, None) for each in nearest_rows(rows, reports, inputs)]
        alone = [report["id"] for report, row in zip(reports, found, strict=True) if row is None]
        if alone:
            raise UserError(
                f"no training report of another patient than report {alone[0]}'s has text in "
                f"column {target!r}; give more training reports"
            )
        outputs = [row[target] for row in found if row is not None]
    return pd.DataFrame({"id": evaluation["id"].tolist(), "output": outputs}, dtype="str")


def best_constant(ids: Sequence[str], targets: Sequence[str], seed: int) -> str:
    """Return the text that scores best when it is given for every report.

    The candidates are the `CANDIDATES` most frequent targets. Each is scored against the same
    sample of up to `SAMPLE` targets, drawn by the hash of (seed, id). Its score is the mean of the
    combined ("complete") reward between lexicon annotations. Ties go to the more frequent, then to
    the first in the alphabet. The evaluation split is not looked at.
    """
    counts = Counter(target for target in targets if target.strip())
    if not counts:
        raise UserError("the training split holds no target text; check task.target")
    candidates = sorted(counts, key=lambda text: (-counts[text], text))[:CANDIDATES]
    order = sorted(
        range(len(ids)), key=lambda row: (unit_hash(seed, "constant", ids[row]), ids[row])
    )
    references = Counter(targets[row] for row in order[:SAMPLE])
    annotated = {text: lexicon.annotate(text) for text in {*references, *candidates}}

    def score(text: str) -> float:
        pairs = (
            count * rewards.f1(annotated[text], annotated[reference])[2]
            for reference, count in sorted(references.items())
        )
        return sum(pairs)

    return max(candidates, key=score)  # the first of equals
