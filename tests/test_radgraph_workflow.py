"""The official annotator as the workflow runs it."""

from pathlib import Path

import pytest
import yaml
from reading import read_jsonl
from tiny_run import CONFIG, copy
from workflow_helpers import finish

from radquant.files import read_table


@pytest.mark.slow
def test_radgraph_through_the_workflow(
    radgraph_python: Path, tiny_radgraph_directory: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The real package on random weights; its environment is the one that its rule would build.

    A finished run takes it in the lexicon's place: what is not annotation stays.
    """
    run = copy(undisturbed, tmp_path / "run")
    (run / "results" / "venvs").symlink_to(radgraph_python.parents[2])
    radgraph = {"model": "radgraph-xl", "directory": str(tiny_radgraph_directory)}
    scoring = {"annotator": "radgraph", "radgraph": radgraph}
    (run / "radgraph.yaml").write_text(yaml.safe_dump({**CONFIG, "scoring": scoring}))
    finish(run, "--configfile", "radgraph.yaml")
    records = read_jsonl(run / "results" / "annotations" / "reference.jsonl")
    assert len(records) == CONFIG["evaluation"]["reports"]
    assert all("radgraph-xl" in record["annotator"] for record in records)
    scores = read_table(run / "results" / "scores" / "copy-input.parquet")
    assert set(scores["annotator"]) == {records[0]["annotator"]}
    assert "RadGraph F1" in (run / "results" / "report.md").read_text()
