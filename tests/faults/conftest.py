"""Where what happened is told."""

from collections import Counter
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ends() -> Iterator[Counter[tuple[str, str]]]:
    """How often what was done and how it ended; printed at the end (pytest -s shows it)."""
    found: Counter[tuple[str, str]] = Counter()
    yield found
    for (what, how), count in sorted(found.items()):
        print(f"\n{count:3} × {what}: {how}", end="")
    print()
