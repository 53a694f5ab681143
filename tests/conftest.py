"""Fixtures shared by the tests."""

import fcntl
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from workflow_helpers import SMOKE, empty_run, finish

REPOSITORY = Path(__file__).parents[1]

# While all test modules are imported, Python goes through 800,000 objects for garbage again and
# again, and finds none. Until they are collected, it looks at young ones alone.
USUAL = gc.get_threshold()
gc.set_threshold(*USUAL[:2], 1000)

# An example may take long on a busy machine. Tests that bound a time measure it themselves.
settings.register_profile("radquant", deadline=None)
settings.load_profile("radquant")

# Files that share an expensive fixture, and others of minutes, the longest first. Each set is one
# worker's, as is every other file, so that no environment and no run is made twice. The cluster's
# file waits much: it goes beside the set whose run keeps both cores busy.
TOGETHER = [
    ("test_workflow_runs", "test_workflow", "test_real_model", "test_snakemake_report"),
    ("test_slurm",),
    ("test_kills", "test_damage"),
    ("test_radgraph", "test_radgraph_workflow"),
    ("test_pages",),
    ("test_places",),
    ("test_privacy",),
    ("test_from_scripts",),
    ("test_tools", "test_interop"),
    ("test_image_scripts",),
    ("test_one_place",),
    ("test_explorer", "test_explorer_search", "test_html", "test_blinded_reading"),
    ("test_architectures",),
]
PLACES = {name: place for place, files in enumerate(TOGETHER) for name in files}

# Tests of minutes are marked `slow` here. Those with a whole run, an environment or a wheel of
# their own are marked by the fixture that makes it. Files that are slow as a whole are marked by
# their names. A slow test of a fast file has the mark itself. So has each `long` one, which runs
# before a release.
SLOW_FIXTURES = {"finished_run", "downloads", "radgraph_python", "tool_pythons"}
SLOW_FILES = {
    *("test_slurm", "test_kills", "test_damage"),  # a cluster; runs that are killed or damaged
    *("test_explorer", "test_explorer_search", "test_blinded_reading"),  # a browser
    *("test_environments", "test_from_scripts"),
    *("test_privacy", "test_workflow_runs"),  # runs of their own
    *("test_radgraph_fetching", "test_recheck"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests that are marked long, too")
    help_text = "how many generated texts test_hostile_texts.py tries (default: %(default)s)"
    parser.addoption("--texts", type=int, default=10_000, metavar="N", help=help_text)
    help_text = "how often faults/test_kills.py kills a run (default: %(default)s)"
    parser.addoption("--kills", type=int, default=5, metavar="N", help=help_text)
    help_text = "let faults/test_damage.py damage every kind of file in every way, not a few"
    parser.addoption("--all-damages", action="store_true", help=help_text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow ones, and put the longest first: workers take tests in this order."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.path.stem in SLOW_FILES or fixtures & SLOW_FIXTURES:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.slow)
            if not config.getoption("--long"):
                item.add_marker(pytest.mark.skip("it takes minutes; --long runs it"))
    items.sort(key=lambda item: PLACES.get(item.path.stem, len(TOGETHER)))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(*USUAL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One worker for each file or set of files. (`--dist loadgroup` is lost on pytest 9.2.)"""
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = Path(nodeid.partition("::")[0]).stem
            return str(PLACES.get(name, name))

    config.option.loadscopereorder = False
    return Scheduler(config, log)


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """A folder that the first worker to need it makes; another waits for it, and reads it only."""
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent  # of all workers
    folder, done = common / name, common / f"{name}.done"
    with open(common / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder


def environments(tmp_path_factory: pytest.TempPathFactory, tools: Sequence[str]) -> dict[str, Path]:
    """The Python of the environment of each of envs/, built side by side by its script.

    RADQUANT_TEST_VENVS names a directory that keeps them from one test run to the next. Whoever
    builds there holds its lock.
    """
    kept = os.environ.get("RADQUANT_TEST_VENVS")
    directory = Path(kept) if kept else tmp_path_factory.mktemp("venvs")
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        builds = []
        for tool in tools:
            command = [sys.executable, "scripts/build_env.py", "--requirements", f"envs/{tool}.txt"]
            words = [*command, "--output", str(directory / tool)]
            builds.append(subprocess.Popen(words, cwd=REPOSITORY))
        assert [build.wait() for build in builds] == [0] * len(tools)
    return {tool: directory / tool / "bin" / "python" for tool in tools}


@pytest.fixture(scope="session")
def radgraph_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of the environment of envs/radgraph.txt."""
    return environments(tmp_path_factory, ["radgraph"])["radgraph"]


@pytest.fixture(scope="session")
def tool_pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The Pythons of AutoAWQ's and GPTQModel's environments."""
    return environments(tmp_path_factory, ["autoawq", "gptqmodel"])


@pytest.fixture(scope="session")
def call_tool(tool_pythons: dict[str, Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program or script with a tool's Python."""

    def run(tool: str, *command: object) -> subprocess.CompletedProcess[str]:
        words = [str(tool_pythons[tool]), *map(str, command)]
        environment = {**os.environ, "PYTHONPATH": "src", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    return run


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
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where wheels are downloaded to.

    RADQUANT_TEST_DOWNLOADS names a directory that keeps them from one test run to the next.
    """
    kept = os.environ.get("RADQUANT_TEST_DOWNLOADS")
    return Path(kept) if kept else tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def invented_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of tests/explorer_reports.py, as the report reads it."""
    from explorer_reports import CONFIG, make_run

    from radquant.reporting.collect import collect

    return collect(make_run(tmp_path_factory.mktemp("invented") / "results"), CONFIG)


@pytest.fixture(scope="session")
def invented_parts(invented_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What its report.html is made of: report.md, the figures by path, and the payload."""
    from explorer_reports import page_parts

    return page_parts(invented_run, tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="session")
def finished_run(downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a finished run of config/smoke.yaml; tests copy it, too."""
    run = empty_run(tmp_path_factory.mktemp("finished") / "run", downloads)
    finish(run, *SMOKE, "--cores", "2")
    return run


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of tests/tiny_run.py, by which faults and the cluster are measured."""
    from tiny_run import make_run, plain

    def make(folder: Path) -> None:
        done = plain(make_run(folder))
        assert done.returncode == 0, done.stderr[-5000:]

    return made_once(tmp_path_factory, "undisturbed", make)
