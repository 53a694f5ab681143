"""Format text-folder: one text file a report."""

from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.members import look_at, members
from radquant.corpus.formats.reading import (
    checked,
    refuse_separator,
    report_from_text,
    text_file,
)
from radquant.corpus.marks import same_id
from radquant.corpus.reports import Report

DESCRIPTION = (
    "A folder of `.txt` files (`.zip`, `.tgz`), whose paths are the ids. It names no patients, so "
    "each report counts as one, and has no split."
)
SOURCES = ("path",)
COLUMNS = False
SPLIT_FILE = False
HEADINGS = True
IMAGES = None


ENDING = ".txt"


def look(source: Source) -> None:
    refuse_separator(source, "text-folder")
    look_at(source, ENDING)


def read(source: Source) -> list[Report]:
    """The id is the path in the folder without the ending."""
    refuse_separator(source, "text-folder")
    reports = []
    for member, data in members(source, ENDING):
        name = same_id(member.removeprefix(f"{source.path}/")[: -len(ENDING)])
        text = text_file(data, member, source)
        reports.append(report_from_text(name, text, member, source))
    return checked(reports, source.name)
