"""Runs that are killed at random moments: the plain command goes on and ends in the same bytes.

CI kills five times. The full count, after which what happened is told:

    python -m pytest tests/faults --kills 30 --all-damages -s
"""

from collections import Counter
from pathlib import Path

import pytest
from tiny_run import STAGES, WAYS, copy, interrupt, make_run, moments, plain, scores

from radquant.terminal.screen import STOPPED

IN_ONE_RUN = 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("--kills") // IN_ONE_RUN))


@pytest.mark.long
def test_a_run_killed_at_random_moments_ends_with_the_bytes_of_an_undisturbed_one(
    undisturbed: Path, tmp_path: Path, seed: int, ends: Counter[tuple[str, str]]
) -> None:
    run = make_run(tmp_path / "run")
    done = []
    for number, (stage, delay) in enumerate(moments(seed, IN_ONE_RUN)):
        way = WAYS[number % 2]
        code = interrupt(run, stage, delay, way)
        assert code == -9
        done.append(f"{way} in {stage[0]}")
    last = plain(run)
    assert last.returncode == 0, last.stderr[-5000:]
    assert scores(run) == scores(undisturbed)
    assert not [path for path in (run / "results").rglob("*.part") if path.is_dir()]
    ends.update((what, "the same scores") for what in done)


@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM to Snakemake"])
def test_what_stops_a_run_leaves_no_process_and_the_next_call_goes_on(
    undisturbed: Path, tmp_path: Path, ends: Counter[tuple[str, str]], way: str
) -> None:
    run = copy(undisturbed, tmp_path / "run")
    stage = next(stage for stage in STAGES if stage[0] == "generate")
    assert interrupt(run, stage, 0.5, way) != 0
    assert not (run / "results" / stage[2]).exists()
    said = (run / "said.txt").read_text().splitlines()
    assert said[-1] == STOPPED
    assert not [line for line in said if "failed" in line]
    done = plain(run)
    assert done.returncode == 0, done.stderr[-5000:]
    assert scores(run) == scores(undisturbed)
    ends[f"{way} in generate", "no process left, then the same scores"] += 1
