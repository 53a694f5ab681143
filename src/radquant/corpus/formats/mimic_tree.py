"""Format mimic-tree: MIMIC-CXR's own layout, files/pXX/pID/sID.txt."""

import re

from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.members import look_at, members
from radquant.corpus.formats.mimic_split import look_at_splits, studies_of
from radquant.corpus.formats.reading import (
    checked,
    refuse_separator,
    report_from_text,
    text_file,
)
from radquant.corpus.reports import Report

DESCRIPTION = (
    "MIMIC-CXR's `files/pXX/pID/sID.txt` (a folder, `.zip`, `.tgz`). The path names the "
    "patient, and `split_file` (`mimic-cxr-2.0.0-split.csv[.gz]`) the split."
)
SOURCES = ("path",)
COLUMNS = False
SPLIT_FILE = True
HEADINGS = True
IMAGES = "split_file"


ENDING = ".txt"


def look(source: Source) -> None:
    refuse_separator(source, "mimic-tree")
    look_at(source, ENDING)
    look_at_splits(source)


def read(source: Source) -> list[Report]:
    """id and study are "sID", the group is the patient "pID".

    A study that the split file lacks has no split.
    """
    refuse_separator(source, "mimic-tree")
    studies = studies_of(source)
    reports = []
    for member, data in members(source, ENDING):
        match = re.search(r"(p\d+)/(s\d+)\.txt$", member, re.IGNORECASE)
        if match is None:
            continue  # README, LICENSE
        patient, study = match[1].lower(), match[2].lower()
        text = text_file(data, member, source)
        report = report_from_text(study, text, member, source)
        report.group, report.study = patient, study
        report.split = studies.splits.get(study, ("", ""))[1]
        report.images = studies.images.get(study, "")
        reports.append(report)
    studies.check_some(reports)
    return checked(reports, source.name)
