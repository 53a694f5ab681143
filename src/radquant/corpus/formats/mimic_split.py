"""MIMIC-CXR-JPG's split file, mimic-cxr-2.0.0-split.csv[.gz]: a row an image of a study."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from radquant.corpus.files.header import need_column
from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.reading import id_cell, split_of
from radquant.corpus.reports import Report
from radquant.corpus.tables import cell, open_table
from radquant.errors import UserError
from radquant.image_files import SEPARATOR, image_names


@dataclass(frozen=True)
class Studies:
    """What a source's split file says of studies, by "sID"."""

    file: Path | None
    splits: dict[str, tuple[str, str]] = field(default_factory=dict)  # "pID", 'train' | 'eval'
    images: dict[str, str] = field(default_factory=dict)

    def check_some(self, reports: list[Report]) -> None:
        """Raise UserError if the file knows none of the reports: it is another corpus's."""
        if self.file and reports and not any(report.split for report in reports):
            raise UserError(
                f"{self.file} holds none of the corpus's studies; check that it belongs"
            )


NEEDED = ("study_id", "subject_id", "split")


def look_at_splits(source: Source) -> None:
    path = source.split_file
    if path is not None and os.path.exists(path):
        table = open_table(path, whole=False)
        for column in (*NEEDED, *filter(None, [source.image_column])) if table.certain else ():
            need_column(column, table.columns, path)


def studies_of(source: Source) -> Studies:
    if source.split_file is None:
        if source.image_column:
            raise UserError(
                "images of MIMIC are named in the split file; give one with that column"
            )
        return Studies(None)
    splits = read_splits(source.split_file, source)
    return Studies(source.split_file, splits, read_images(source.split_file, source.image_column))


def read_splits(path: Path, source: Source | None = None) -> dict[str, tuple[str, str]]:
    """Return {"sID": ("pID", 'train' | 'eval')}; validate is for training, test for evaluation."""
    source = source or Source()
    table = open_table(path, notes=source.notes)
    for column in NEEDED:
        need_column(column, table.columns, path)
    studies: dict[str, tuple[str, str]] = {}
    for place, row in table.rows(NEEDED):
        study = _named("s", "study_id", row, place, source)
        split = split_of(cell(row, "split", place, source.notes), place)
        found = (_named("p", "subject_id", row, place, source), split)
        if studies.setdefault(study, found) != found:
            raise UserError(f"{place}: study {study} is in two splits or of two patients")
    return studies


def _named(letter: str, column: str, row: Mapping[str, str], place: str, source: Source) -> str:
    """The id in a cell behind its letter, which some tables write, too."""
    number = id_cell(row, column, place, source)
    if not number:
        raise UserError(f"{place}: column {column!r} is empty; each row is an image of a study")
    return letter + (number[1:] if number[0].lower() == letter else number)


def read_images(path: Path, column: str | None) -> dict[str, str]:
    """Return {"sID": its image files, in the order of the rows}.

    A row of that file is an image of MIMIC-CXR-JPG. `column`, which the user adds, names its file,
    or is empty for one that is not to be shown. Without a column nothing is read.
    """
    if column is None:
        return {}
    source = Source()  # what is recognised of the file was noted with its splits
    table = open_table(path)
    column = need_column(column, table.columns, path)
    need_column("study_id", table.columns, path)
    found: dict[str, list[str]] = {}
    for place, row in table.rows(["study_id", column]):
        names = found.setdefault(_named("s", "study_id", row, place, source), [])
        names += image_names(cell(row, column, place))
    return {study: SEPARATOR.join(names) for study, names in found.items()}
