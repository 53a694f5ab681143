"""Fixtures shared by the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from workflow_helpers import SMOKE, copy_repository, finish

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def radgraph_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of the environment of envs/radgraph.txt, built by its script.

    RADQUANT_TEST_VENVS names a directory that keeps it from one test run to the next.
    """
    kept = os.environ.get("RADQUANT_TEST_VENVS")
    directory = Path(kept) if kept else tmp_path_factory.mktemp("venvs")
    command = [sys.executable, "scripts/build_env.py", "--requirements", "envs/radgraph.txt"]
    subprocess.run([*command, "--output", str(directory / "radgraph")], cwd=REPOSITORY, check=True)
    return directory / "radgraph" / "bin" / "python"


@pytest.fixture(scope="session")
def tiny_radgraph_directory(
    radgraph_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with radgraph-xl.tar.gz (random weights, real layout) and its text encoder."""
    directory = tmp_path_factory.mktemp("tiny-radgraph")
    command = [str(radgraph_python), "tests/tiny_radgraph.py", str(directory)]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return directory


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a finished run of config/smoke.yaml; tests copy it, too.

    RADQUANT_TEST_DOWNLOADS names a directory that keeps the wheels from one test run to the next.
    """
    run = copy_repository(tmp_path_factory.mktemp("finished") / "run")
    kept = os.environ.get("RADQUANT_TEST_DOWNLOADS")
    downloads = Path(kept) if kept else tmp_path_factory.mktemp("downloads")
    (run / "results").mkdir()
    (run / "results" / "downloads").symlink_to(downloads.resolve())
    finish(run, *SMOKE, "--cores", "2")
    return run
