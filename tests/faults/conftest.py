"""The undisturbed run that all faults are measured by, and where what happened is told."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_run import make_run, plain


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("undisturbed") / "run")
    done = plain(run)
    assert done.returncode == 0, done.stderr[-5000:]
    return run


@pytest.fixture(scope="session")
def ends() -> Iterator[Counter[tuple[str, str]]]:
    """How often what was done and how it ended; printed at the end (pytest -s shows it)."""
    found: Counter[tuple[str, str]] = Counter()
    yield found
    for (what, how), count in sorted(found.items()):
        print(f"\n{count:3} × {what}: {how}", end="")
    print()
