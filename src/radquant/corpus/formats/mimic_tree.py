"""Format mimic-tree: MIMIC-CXR's own layout, files/pXX/pID/sID.txt."""

import re

from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.members import members
from radquant.corpus.formats.mimic_split import studies_of
from radquant.corpus.formats.reading import checked, report_from_text
from radquant.corpus.reports import Report
from radquant.corpus.tables import decode

DESCRIPTION = (
    "MIMIC-CXR's `files/pXX/pID/sID.txt` (a folder, `.zip`, `.tgz`); the path names the patient, "
    "`split_file` (`mimic-cxr-2.0.0-split.csv[.gz]`) the split."
)
SOURCES = ("path",)
COLUMNS = False
SPLIT_FILE = True
IMAGES = "split_file"


def read(source: Source) -> list[Report]:
    """id and study are "sID", the group is the patient "pID".

    A study that the split file lacks has no split.
    """
    studies = studies_of(source)
    reports = []
    for member, data in members(source, ".txt"):
        match = re.search(r"(p\d+)/(s\d+)\.txt$", member)
        if match is None:
            continue  # README, LICENSE
        patient, study = match[1], match[2]
        report = report_from_text(study, decode(data, member), where=member)
        report.group, report.study = patient, study
        report.split = studies.splits.get(study, ("", ""))[1]
        report.images = studies.images.get(study, "")
        reports.append(report)
    studies.check_some(reports)
    return checked(reports, source.name)
