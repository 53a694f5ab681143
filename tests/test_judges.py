"""Measures that are trained models: their folders, environments and formulas.

Their weights are not here. tests/tiny_judges.py makes tiny ones, which go through the real packages
where RADQUANT_TEST_JUDGES names the Python of an environment of envs/judges.txt.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_run import CONFIG

from radquant import registry
from radquant.errors import UserError
from radquant.files import read_table, write_table
from radquant.scoring.measure_fetching import WITH_FOLDERS, fetch
from radquant.scoring.measures import folders, radcliq
from radquant.scoring.measures.kind import Loaded
from radquant.scoring.measures.tables import measured
from radquant.scoring.metrics.kind import Column
from radquant.settings.configuration import resolve

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", sorted(WITH_FOLDERS))
def test_its_environment_is_there_and_its_columns_are_known(name: str) -> None:
    kind = registry.load_kind(registry.MEASURES, name)
    assert (ROOT / "envs" / f"{kind.ENVIRONMENT}.txt").is_file()
    assert kind.ABOUT.group == "model judge"
    assert kind.ABOUT.remark
    names = {column.name for column in kind.ABOUT.columns} | {"rg1_mean"}
    assert all(set(pooled.columns) <= names for pooled in kind.ABOUT.pooled)
    assert not kind.on({"directory": None})


def test_a_folder_is_whole_and_holds_no_code_that_may_not_run(tmp_path: Path) -> None:
    chexbert, cxrfescore = (
        registry.load_kind(registry.MEASURES, name) for name in ("chexbert", "cxrfescore")
    )
    settings = {"directory": str(tmp_path), "trust_remote_code": False}
    with pytest.raises(UserError, match=r"has no chexbert\.pth \(of StanfordAIMI"):
        chexbert.check(settings)
    (tmp_path / "chexbert.pth").touch()
    (tmp_path / "bert-base-uncased").mkdir()
    chexbert.check(settings)
    (tmp_path / "bert-base-uncased" / "modeling.py").touch()
    with pytest.raises(UserError, match=r"modeling\.py is code"):
        chexbert.check(settings)
    with pytest.raises(UserError, match="trust_remote_code: true"):
        cxrfescore.check(settings)


def test_another_weight_is_another_identity(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "weights").write_text("1")
    first = folders.identity("numpy", {"part": ""}, tmp_path)
    assert first.startswith("numpy 2")
    (tmp_path / "elsewhere").write_text("1")
    assert folders.identity("numpy", {"part": ""}, tmp_path) == first
    (tmp_path / "part" / "weights").write_text("2")
    assert folders.identity("numpy", {"part": ""}, tmp_path) != first


def test_a_blank_output_reaches_a_measure_that_wants_it(tmp_path: Path) -> None:
    write_table(tmp_path / "eval.csv", pd.DataFrame({"id": ["a", "b"], "impression": ["x", "y"]}))
    write_table(tmp_path / "o.parquet", pd.DataFrame({"id": ["b", "a"], "output": [" ", "xx"]}))
    column = Column("length", "length", range=(0, 100))

    def found(blank: tuple[float] | None) -> list[float]:
        loaded = Loaded("toy", lambda pairs: ((float(len(o)),) for _, o in pairs), blank)
        table = measured(
            [column], loaded, tmp_path / "eval.csv", "impression", [tmp_path / "o.parquet"]
        )
        return table["length"].tolist()

    assert found((50.0,)) == [2, 50]
    assert found(None) == [2, 1]


def test_radcliq_needs_the_first_radgraph_model() -> None:
    with pytest.raises(UserError, match=r"scoring\.radcliq holds the score of the first RadGraph"):
        resolve({**CONFIG, "scoring": {"radcliq": {"directory": "x"}}})


def test_radcliq_is_the_published_line() -> None:
    """Standardised on ReXVal's means, weighed and added, as scikit-learn's scaler and a dot do."""
    scores = np.array([[0.4, 0.55, 0.9], [0.1, 0.2, 0.3]])
    means = np.array([0.53792312, 0.61757256, 0.76479421])
    variances = np.array([0.09170349, 0.05031470, 0.06448751])
    weights = np.array([-3.77083683e-01, -3.70300100e-01, -2.52616218e-01])
    expected = (scores - means) / np.sqrt(variances) @ weights
    assert radcliq.composite(*scores.T) == pytest.approx(expected, abs=1e-6)
    (pooled,) = radcliq.ABOUT.pooled
    assert pooled.value(pooled.count(scores).sum(axis=0)) == pytest.approx(expected.mean())


def test_fetching_asks_for_every_parts_commit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"commit of chexbert\.pth is missing"):
        list(fetch("chexbert", {}, tmp_path))
    with pytest.raises(UserError, match="no part 'weights'"):
        list(fetch("chexbert", {"weights": "0" * 40}, tmp_path))


needs_judges = pytest.mark.skipif(
    not os.environ.get("RADQUANT_TEST_JUDGES"),
    reason="the judges' environment takes GB; RADQUANT_TEST_JUDGES names the Python of one",
)


@needs_judges
@pytest.mark.parametrize("name", ["chexbert", "radcliq"])
def test_tiny_weights_go_through_the_real_packages(name: str, tmp_path: Path) -> None:
    python = os.environ["RADQUANT_TEST_JUDGES"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}

    def call(*words: object) -> None:
        subprocess.run([python, *map(str, words)], cwd=ROOT, env=environment, check=True)

    call("tests/tiny_judges.py", tmp_path / "weights")
    texts = {"same": "Small left effusion.", "empty": "", "other": "No pneumonia. No edema."}
    ids = list(texts)
    # Words that all references share have the weight 0 in RadCliQ's BERTScore.
    said = [texts["same"], "Large effusion.", "There is edema."]
    references = pd.DataFrame({"id": ids, "impression": said})
    write_table(tmp_path / "eval.csv", references)
    outputs = pd.DataFrame({"id": ids, "output": list(texts.values())})
    write_table(tmp_path / "outputs.parquet", outputs)
    call(
        *("scripts/measure.py", "--measure", name, f"--{name}-directory", tmp_path / "weights"),
        *("--eval", tmp_path / "eval.csv", "--generations", tmp_path / "outputs.parquet"),
        *("--output", tmp_path / "found.parquet"),
    )
    found = read_table(tmp_path / "found.parquet").set_index("id")
    if name == "radcliq":
        assert found.loc["same", "radcliq_bertscore"] == pytest.approx(1, abs=1e-5)
        assert found.loc["same", "radcliq_embedding"] == pytest.approx(1, abs=1e-5)
        assert found["radcliq_bertscore"].idxmax() == "same"
    else:
        codes = found.loc["same"].drop(["measure", "text_hash"]).astype(int)
        assert (codes // 10 == codes % 10).all()  # equal texts have equal labels
        assert {
            *(found.drop(columns=["measure", "text_hash"]).astype(int).to_numpy() % 10).ravel()
        } <= {0, 1, 2, 3}
