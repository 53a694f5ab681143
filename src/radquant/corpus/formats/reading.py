"""What several formats do with what they read."""

from collections.abc import Iterator
from pathlib import Path

from radquant.cli import progress
from radquant.corpus.reports import SECTIONS, Report, check_ids
from radquant.corpus.sections import find_sections
from radquant.errors import UserError

Row = tuple[str, dict[str, str]]  # its place, and its cells by column
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    # A validation split is for choosing a model, which a comparison of precisions never does.
    **dict.fromkeys(("validate", "validation", "valid", "val", "dev"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "eval"),
    "": "",
}


def report_from_text(identifier: str, text: str, where: str) -> Report:
    found = find_sections(text)
    return Report(
        id=identifier,
        text=text,
        where=where,
        **{name: getattr(found, name) for name in SECTIONS},
    )


def split_of(value: str, place: str) -> str:
    """Return 'train', 'eval' or '' for what a corpus calls a split."""
    name = value.strip().lower()
    if name not in SPLITS:
        shown = ", ".join(filter(None, SPLITS))
        raise UserError(f"{place}: the split is none of {shown}")
    return SPLITS[name]


def with_progress(rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows, with progress; they are counted first, so they are all held in memory."""
    held = list(rows)
    return progress(held, "reading", len(held), "reports")


def checked(reports: list[Report], name: str | Path) -> list[Report]:
    """Return `reports`; raises UserError if there is none, or two have one id."""
    if not reports:
        raise UserError(f"{name} holds no report; check the path and the corpus's format")
    check_ids(reports)
    return reports
