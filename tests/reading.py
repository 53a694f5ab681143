"""Reading what a run writes, for the tests alone."""

import json
from pathlib import Path
from typing import Any

from radquant.files import require_whole


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """All records of a file, whose own hash must fit it."""
    require_whole(path)
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
