"""Format mimic-sectioned: the table that MIMIC-CXR's own section splitter writes.

Its columns are study, impression, findings, last_paragraph and comparison.
"""

from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.mimic_split import studies_of
from radquant.corpus.formats.reading import checked, with_progress
from radquant.corpus.reports import SECTIONS, Report, compose
from radquant.corpus.sections import is_boilerplate
from radquant.corpus.tables import cell, need_column, read_rows

DESCRIPTION = (
    "`mimic_cxr_sectioned.csv`; `split_file` (`mimic-cxr-2.0.0-split.csv[.gz]`) names patient and "
    "split."
)
SOURCES = ("path",)
COLUMNS = False
SPLIT_FILE = True
IMAGES = "split_file"


def read(source: Source) -> list[Report]:
    """Where neither findings nor impression was found, the last paragraph is the findings, unless
    that is boilerplate. Without a split file every study is taken for a patient of its own."""
    assert source.path is not None
    studies = studies_of(source)
    columns, rows = read_rows(source.path)
    for column in ("study", "impression", "findings"):
        need_column(column, columns, source.path)
    reports = []
    for place, row in with_progress(rows):
        sections = {name: cell(row, name, place) for name in SECTIONS}
        last = cell(row, "last_paragraph", place)
        if not sections["findings"].strip() and not sections["impression"].strip():
            sections["findings"] = "" if is_boilerplate(last) else last
        study = cell(row, "study", place)
        study = f"s{study}" if study.isdecimal() else study
        group, split = studies.splits.get(study, ("", ""))
        report = Report(id=study, group=group, study=study, split=split, where=place, **sections)
        report.text = compose(report)
        report.images = studies.images.get(study, "")
        reports.append(report)
    studies.check_some(reports)
    return checked(reports, source.name)
