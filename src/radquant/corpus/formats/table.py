"""Format table: one table of reports, or one for training and one for evaluation."""

from collections.abc import Mapping
from pathlib import Path

from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.reading import checked, split_of, with_progress
from radquant.corpus.reports import SECTIONS, Report, compose
from radquant.corpus.sections import find_sections
from radquant.corpus.tables import cell, need_column, read_rows
from radquant.errors import UserError
from radquant.image_files import SEPARATOR, image_names

DESCRIPTION = (
    "One CSV, JSONL or Parquet file (`path`), or two (`train`, `eval`), with a `text` column or "
    "with `findings` and `impression`; columns `group` and `split`, where there are any, name "
    "patient and split."
)
SOURCES = ("path", "train and eval")
COLUMNS = True
SPLIT_FILE = False
IMAGES = "reports"

FIELDS = ("id", "group", "study", "text", *SECTIONS, "split")
# Which columns of a table are taken for a field that the user did not name.
_USUAL = {
    "id": ("id", "study_id", "study"),
    "group": ("group", "patient", "patient_id", "subject_id"),
    "study": ("study", "study_id"),
    "text": ("text", "report"),
}


def read(source: Source) -> list[Report]:
    """Of two tables the file is the split.

    A field that `source.columns` does not name is taken from a column of that name, but images
    never (for id also study_id or study, for group also patient, patient_id or subject_id, for text
    also report). Sections without a column are found in the text; text without a column is put
    together from the sections; without an id, "row-N" numbers the records.
    """
    columns = dict(source.columns)
    if source.image_column:
        columns["images"] = source.image_column
    if source.path is not None:
        return checked(_table(source.path, columns, ""), source.path)
    assert source.train is not None
    assert source.eval is not None
    first = _table(source.train, columns, "train")
    second = _table(source.eval, columns, "eval")
    for name, found in ((source.train, first), (source.eval, second)):
        if not found:
            raise UserError(f"{name} holds no report; check the file")
    return checked(first + second, source.train)


def _table(path: Path, asked: Mapping[str, str], split: str) -> list[Report]:
    available, rows = read_rows(path)
    columns = _choose_columns(available, asked, path)
    from_text = [name for name in SECTIONS if name not in columns]
    reports = []
    for number, (place, row) in enumerate(with_progress(rows), 1):
        fields = {field: cell(row, column, place) for field, column in columns.items()}
        fields.setdefault("id", f"{split or 'row'}-{number}")
        fields["split"] = split or split_of(fields.get("split", ""), place)
        fields["images"] = SEPARATOR.join(image_names(fields.get("images", "")))
        report = Report(**fields, where=place)
        if "text" in columns and from_text:
            found = find_sections(report.text)
            for name in from_text:
                setattr(report, name, getattr(found, name))
        elif "text" not in columns:
            report.text = compose(report)
        reports.append(report)
    return reports


def _choose_columns(available: list[str], asked: Mapping[str, str], path: Path) -> dict[str, str]:
    columns = {field: need_column(name, available, path) for field, name in asked.items()}
    for field in FIELDS:
        usual = [name for name in _USUAL.get(field, (field,)) if name in available]
        if field not in columns and usual:
            columns[field] = usual[0]
    if not {"text", "findings", "impression"} & set(columns):
        if not available:
            raise UserError(f"{path} is empty; check the file")
        raise UserError(
            f"{path} has no column 'text', 'findings' or 'impression'; its columns are "
            f"{', '.join(available)}; name the one that holds the report"
        )
    return columns
