"""MIMIC-CXR-JPG's split file, mimic-cxr-2.0.0-split.csv[.gz]: a row an image of a study."""

from dataclasses import dataclass, field
from pathlib import Path

from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.reading import split_of
from radquant.corpus.reports import Report
from radquant.corpus.tables import cell, need_column, read_rows
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


def studies_of(source: Source) -> Studies:
    splits = read_splits(source.split_file) if source.split_file else {}
    return Studies(source.split_file, splits, read_images(source.split_file, source.image_column))


def read_splits(path: Path) -> dict[str, tuple[str, str]]:
    """Return {"sID": ("pID", 'train' | 'eval')}; validate is for training, test for evaluation."""
    columns, rows = read_rows(path)
    for column in ("study_id", "subject_id", "split"):
        need_column(column, columns, path)
    studies: dict[str, tuple[str, str]] = {}
    for place, row in rows:
        study = f"s{cell(row, 'study_id', place)}"
        found = (f"p{cell(row, 'subject_id', place)}", split_of(cell(row, "split", place), place))
        if studies.setdefault(study, found) != found:
            raise UserError(f"{place}: study {study} is in two splits or of two patients")
    return studies


def read_images(path: Path | None, column: str | None) -> dict[str, str]:
    """Return {"sID": its image files, in the order of the rows}.

    A row of that file is an image of MIMIC-CXR-JPG; `column`, which the user adds, names its file
    or is empty for one that is not to be shown. Without a column nothing is read.
    """
    if column is None:
        return {}
    if path is None:
        raise UserError("images of MIMIC are named in the split file; give one with that column")
    columns, rows = read_rows(path)
    need_column(column, columns, path)
    need_column("study_id", columns, path)
    found: dict[str, list[str]] = {}
    for place, row in rows:
        names = found.setdefault(f"s{cell(row, 'study_id', place)}", [])
        names += image_names(cell(row, column, place))
    return {study: SEPARATOR.join(names) for study, names in found.items()}
