"""Format mimic-sectioned: the table that MIMIC-CXR's own section splitter writes.

Its columns are study, impression, findings, last_paragraph and comparison.
"""

import os

from radquant.corpus.files.header import need_column
from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.mimic_split import look_at_splits, studies_of
from radquant.corpus.formats.reading import checked, id_cell, text_cell, with_progress
from radquant.corpus.reports import SECTIONS, Report, compose
from radquant.corpus.sections import is_boilerplate
from radquant.corpus.tables import open_table

DESCRIPTION = (
    "`mimic_cxr_sectioned.csv`. `split_file` (`mimic-cxr-2.0.0-split.csv[.gz]`) names patient and "
    "split."
)
SOURCES = ("path",)
COLUMNS = False
SPLIT_FILE = True
HEADINGS = False
IMAGES = "split_file"


NEEDED = ("study", "impression", "findings")


def look(source: Source) -> None:
    if source.path is not None and os.path.exists(source.path):
        table = open_table(source.path, source.separator, source.encoding, whole=False)
        for column in NEEDED if table.certain else ():
            need_column(column, table.columns, source.path)
    look_at_splits(source)


def read(source: Source) -> list[Report]:
    """Where neither findings nor impression was found, the last paragraph is the findings, unless
    that is boilerplate. Without a split file every study is taken for a patient of its own."""
    assert source.path is not None
    studies = studies_of(source)
    table = open_table(source.path, source.separator, source.encoding, source.notes)
    for column in NEEDED:
        need_column(column, table.columns, source.path)
    used = {"study", "last_paragraph", *SECTIONS} & set(table.columns)
    reports = []
    for place, row in with_progress(table.rows([*used])):
        sections = {
            name: text_cell(row, name, place, source, says_none=name == "comparison")
            for name in SECTIONS
        }
        last = text_cell(row, "last_paragraph", place, source)
        if not sections["findings"].strip() and not sections["impression"].strip():
            sections["findings"] = "" if is_boilerplate(last) else last
        study = id_cell(row, "study", place, source)
        number = study[1:] if study[:1] in ("s", "S") else study
        study = f"s{number}" if number.isdecimal() else study
        group, split = studies.splits.get(study, ("", ""))
        report = Report(id=study, group=group, study=study, split=split, where=place, **sections)
        report.text = compose(report)
        report.images = studies.images.get(study, "")
        reports.append(report)
    studies.check_some(reports)
    return checked(reports, source.name)
