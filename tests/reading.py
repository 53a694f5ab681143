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


def report_tables(report: str) -> list[list[list[str]]]:
    """Of each table of a report, its rows of cells; columns that are folded away are joined."""
    found: list[list[list[str]]] = []
    before, folded = "", False
    for line in report.splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append([cell.strip() for cell in line.split("|")[1:-1]])
        elif before.startswith("|") and folded:
            more = found.pop()
            pairs = enumerate(zip(more[0], found[-1][0], strict=False))
            keys = next(number for number, names in pairs if len(set(names)) > 1)
            found[-1] = [row + rest[keys:] for row, rest in zip(found[-1], more, strict=True)]
            folded = False
        folded = folded or line.startswith("<details><summary>More columns: ")
        before = line
    return found
