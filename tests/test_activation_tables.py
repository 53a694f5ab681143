"""The tables of benchmarks/activations.py, on figures whose answers are known."""

from pathlib import Path
from typing import Any

import activations as benchmark
import pandas as pd
import pytest

from radquant.errors import UserError
from radquant.files import write_table

PRECISIONS: dict[str, Any] = {
    "original": {"checkpoint": "original", "activations": None, "kv_cache": None},
    "w4a16": {"checkpoint": "awq", "activations": None, "kv_cache": None},
    "w4a8": {"checkpoint": "awq", "activations": {"bits": 8}, "kv_cache": None},
    "w4a4": {"checkpoint": "fitted", "activations": {"bits": 4}, "kv_cache": None},
    "w4a16-fitted": {"checkpoint": "fitted", "activations": None, "kv_cache": None},
}
# Nats per token, the same in every report: an interval has no width.
PER_TOKEN = {"original": 2.0, "w4a16": 2.5, "w4a8": 2.6, "w4a4": 3.0, "w4a16-fitted": 2.4}
TOKENS = [4, 10, 6]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, each in PER_TOKEN.items():
        nll = pd.DataFrame({"id": list("abc"), "nll": [each * n for n in TOKENS], "tokens": TOKENS})
        write_table(tmp_path / "likelihood" / f"{name}.parquet", nll)
        scores = pd.DataFrame(
            {
                "id": list("abc"),
                "annotator": "lexicon",
                "simple": [0.5, 0.25, 0.0] if name == "original" else [0.5, 0.5, 0.25],
                "fidelity_simple": each / 10,
                "identical": [True, False, False],
            }
        )
        write_table(tmp_path / "scores" / f"{name}.parquet", scores)
    return tmp_path


def rows(text: str) -> dict[str, list[str]]:
    """The cells behind each row's name, by name."""
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: rest for name, *rest in cells}


def test_activations_are_compared_with_the_same_weights_unrounded(results: Path) -> None:
    found = rows(benchmark.likelihood_table(results, PRECISIONS, "w4a16"))
    assert list(found) == sorted(PER_TOKEN, key=lambda name: PER_TOKEN[name])
    assert found["w4a8"][1:] == [
        "2.6000",
        *["+0.1000 (+0.1000 to +0.1000)", "+4.00%"] * 2,
    ]
    assert found["w4a4"][1:] == [
        "3.0000",
        "+0.5000 (+0.5000 to +0.5000)",
        "+20.00%",
        "+0.6000 (+0.6000 to +0.6000)",
        "+25.00%",
    ]
    assert found["w4a16"][2:] == [""] * 4
    assert found["original"][2:] == ["-0.5000 (-0.5000 to -0.5000)", "-20.00%", "", ""]


def test_outputs_are_listed_by_their_likeness_to_the_original(results: Path) -> None:
    found = rows(benchmark.outputs_table(results, PRECISIONS))
    assert next(iter(found)) == "w4a4"
    assert found["w4a8"][1] == "0.417"
    assert found["w4a8"][2].startswith("+0.167 (")
    assert found["w4a8"][3:] == ["0.260", "33%"]
    assert found["original"][2:] == ["", "", ""]


def test_scores_of_other_reports_are_refused(results: Path) -> None:
    path = results / "scores" / "w4a8.parquet"
    write_table(path, pd.read_parquet(path).assign(id=list("abd")))
    with pytest.raises(UserError, match="different reports"):
        benchmark.outputs_table(results, PRECISIONS)
