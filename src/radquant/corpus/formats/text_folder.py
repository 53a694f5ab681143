"""Format text-folder: one text file a report."""

from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.members import members
from radquant.corpus.formats.reading import checked, report_from_text
from radquant.corpus.reports import Report
from radquant.corpus.tables import decode

DESCRIPTION = (
    "A folder of `.txt` files (`.zip`, `.tgz`), whose paths are the ids; it names no patients, so "
    "each report counts as one, and has no split."
)
SOURCES = ("path",)
COLUMNS = False
SPLIT_FILE = False
IMAGES = None


def read(source: Source) -> list[Report]:
    """The id is the path in the folder without the ending."""
    reports = []
    for member, data in members(source, ".txt"):
        name = member.removeprefix(f"{source.path}/").removesuffix(".txt")
        reports.append(report_from_text(name, decode(data, member), where=member))
    return checked(reports, source.name)
