"""The official annotator as the workflow runs it."""

from pathlib import Path

import pytest
import yaml
from reading import read_jsonl
from workflow_helpers import empty_run, finish

from radquant.files import read_table


@pytest.mark.slow
def test_radgraph_through_the_workflow(
    radgraph_python: Path, tiny_radgraph_directory: Path, downloads: Path, tmp_path: Path
) -> None:
    """The real package on random weights; its environment is the one that its rule would build."""
    run = empty_run(tmp_path / "run", downloads)
    (run / "results" / "venvs").symlink_to(radgraph_python.parents[2])
    smoke = yaml.safe_load((run / "config" / "smoke.yaml").read_text())
    smoke["precisions"] = {"original": {"checkpoint": "original"}}
    smoke["scoring"] = {
        "annotator": "radgraph",
        "radgraph": {"model": "radgraph-xl", "directory": str(tiny_radgraph_directory)},
    }
    (run / "radgraph.yaml").write_text(yaml.safe_dump(smoke))
    finish(run, "--configfile", "radgraph.yaml")
    records = read_jsonl(run / "results" / "annotations" / "reference.jsonl")
    assert len(records) == smoke["evaluation"]["reports"]
    assert all("radgraph-xl" in record["annotator"] for record in records)
    scores = read_table(run / "results" / "scores" / "copy-input.parquet")
    assert set(scores["annotator"]) == {records[0]["annotator"]}
    assert "RadGraph F1" in (run / "results" / "report.md").read_text()
