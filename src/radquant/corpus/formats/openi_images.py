"""The image files of Open-I's reports, and which of them were taken from the front.

A report's XML names its images by id, `<parentImage id="CXR1000_IM-0003-1001">`, and not their
files. Those are called CXR1000_IM-0003-1001.png in NLMCXR_png.tgz, 1000_IM-0003-1001.dcm in
NLMCXR_dcm.tgz, and 1000_IM-0003-1001.dcm.png in the copy on Kaggle. Of one report the number stands
twice in the XML and once in some of these (CXR1_1_IM-0001-3001).
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from radquant.cli import progress
from radquant.corpus.files.header import shown_names
from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.members import files_in, look_at_archive, packed_files
from radquant.corpus.reports import Report
from radquant.corpus.tables import cell, open_table
from radquant.errors import UserError
from radquant.image_files import ENDINGS, SEPARATOR, image_names
from radquant.image_roots import is_archive

ELEMENT = "parentImage"
FRONTAL, LATERAL = "frontal", "lateral"
# Kaggle's indiana_projections.csv; the two tables of torchxrayvision; MIMIC's word for it.
_FILES = ("filename", "imageid", "image_id", "image", "dicom_id")
_VIEWS = ("projection", "tsne-view", "view", "view position", "viewposition")
_SAID = {
    **dict.fromkeys(("frontal", "pa", "ap", "front", "f"), FRONTAL),
    **dict.fromkeys(("lateral", "large lateral", "lat", "ll", "rl", "l"), LATERAL),
}
_NAME = re.compile(r"(?:cxr)?(?P<report>\d+)_(?:(?P=report)_)?(?P<image>im-.*)")
_FRONT = re.compile(r"\b(?:PA|AP|frontal|postero-?anterior|antero-?posterior)\b", re.IGNORECASE)
_SIDE = re.compile(r"\blat(?:eral)?\b", re.IGNORECASE)
# XXXX stands in place of a word that was taken out.
_MORE = re.compile(r"\b(?:and|both|views|images|two|three|2|3)\b|[/&+]", re.IGNORECASE)
_OUT = re.compile(r"X{4}")


@dataclass(frozen=True)
class Named:
    """An image as the XML names it."""

    id: str
    caption: str  # of the examination as a rule: the same for all images of a report

    @property
    def key(self) -> str:
        return key_of(self.id)


def named_in(root: Element, place: str) -> list[Named]:
    """Return the images that the XML of one report names, in its order, each once.

    Raises UserError for one without an id.
    """
    found: dict[str, Named] = {}
    for element in root.iter(ELEMENT):
        name = element.get("id", "").strip()
        if not name:
            raise UserError(f"{place}: a {ELEMENT} has no id; fetch the file again")
        caption = " ".join((element.findtext("caption") or "").split())
        found.setdefault(key_of(name), Named(name, caption))
    return list(found.values())


def key_of(name: str) -> str:
    """Return what an id and the names of its files have in common.

    CXR1_1_IM-0001-3001, x/1_IM-0001-3001.dcm.png and CXR1_IM-0001-3001 are one image.
    """
    stem = name.replace("\\", "/").rsplit("/", 1)[-1].strip().lower()
    while stem.endswith(ENDINGS):
        stem = stem.rsplit(".", 1)[0]
    match = _NAME.fullmatch(stem)
    return f"{match['report']}_{match['image']}" if match else stem


def look_at_images(source: Source) -> None:
    """Raise UserError if a table of views that is there has no such columns.

    It is also raised if a folder of images holds none, or what should be an archive is none.
    """
    views, root = source.views_file, source.image_root
    if views is not None and views.exists():
        table = open_table(views, whole=False)
        if table.certain:
            _column(table.columns, _FILES, views)
            _column(table.columns, _VIEWS, views)
    if root is not None and is_archive(root) and root.is_file():
        look_at_archive(root)
    if root is not None and root.is_dir() and not any(map(_is_image, files_in(root))):
        raise UserError(
            f"{root} holds no image: no file in it ends in {', '.join(ENDINGS)}; unpack the "
            "archive of Open-I's images there, or name the archive"
        )


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def set_images(reports: list[tuple[Report, list[Named]]], source: Source) -> None:
    """Set the image files of each report, and those that it names and that are not there.

    A report that lacks one of its images is given none: a part of an examination is another.
    Raises UserError if a file cannot be told, or not one of them is there.
    """
    assert source.image_root is not None
    wanted = [(report, _wanted(images, source)) for report, images in _with_views(reports, source)]
    by_key = {image.key: (report, image) for report, images in wanted for image in images}
    files = _files(source, by_key)
    for report, images in wanted:
        missing = [image.id for image in images if image.key not in files]
        report.missing = SEPARATOR.join(missing)
        if missing:
            source.notes["left out", "images", "reports that name a file that is not there"] += 1
        else:
            report.images = SEPARATOR.join(files[image.key] for image in images)
    if by_key and not files:
        report, image = next(iter(by_key.values()))
        raise UserError(
            f"{source.image_root} holds none of the {len(by_key)} images that the reports name, "
            f"such as {image.id} of report {report.id}; give their folder or archive as "
            "corpus.image_root"
        )


def _with_views(
    reports: list[tuple[Report, list[Named]]], source: Source
) -> Iterator[tuple[Report, list[tuple[Named, str]]]]:
    """Yield each report with its images and their views, '' where nothing says which."""
    views = read_views(source.views_file, source) if source.views_file else {}
    known = 0
    for report, images in reports:
        captions = Counter(image.caption for image in images)
        chosen = []
        for image in images:
            known += image.key in views
            own = view_of(image.caption) if captions[image.caption] == 1 else ""
            chosen.append((image, views.get(image.key) or own))
        yield report, chosen
    if source.views_file and not known:
        raise UserError(
            f"{source.views_file} names none of the images of the corpus; check that it belongs"
        )


def _wanted(images: list[tuple[Named, str]], source: Source) -> list[Named]:
    if source.views != FRONTAL:
        return [image for image, _ in images]
    for _, view in images:
        if view != FRONTAL:
            which = "lateral views" if view == LATERAL else "images whose view is not known"
            source.notes["left out", "images", which] += 1
    return [image for image, view in images if view == FRONTAL]


def view_of(caption: str) -> str:
    """Return 'frontal' or 'lateral' where a caption names this view alone, else ''.

    "PA and lateral" is the examination; "XXXX lateral" may have named another view, too.
    """
    front, side = bool(_FRONT.search(caption)), bool(_SIDE.search(caption))
    if front == side or _MORE.search(caption) or (side and _OUT.search(caption)):
        return ""
    return FRONTAL if front else LATERAL


def read_views(path: Path, source: Source) -> dict[str, str]:
    """Return {key of an image: 'frontal', 'lateral', or '' for whatever else a table says}.

    Raises UserError for a table without a column of files and one of views, and for an image that
    it says to be both.
    """
    table = open_table(path, notes=source.notes)
    file = _column(table.columns, _FILES, path)
    view = _column(table.columns, _VIEWS, path)
    views: dict[str, str] = {}
    for place, row in table.rows([file, view]):
        key = key_of(cell(row, file, place, source.notes))
        said = _SAID.get(cell(row, view, place, source.notes).strip().lower(), "")
        if key and views.setdefault(key, said) != said:
            raise UserError(f"{place}: the image has another view in an earlier row; correct one")
    return views


def _column(columns: list[str], usual: Iterable[str], path: Path) -> str:
    plain = {name.strip().lower(): name for name in reversed(columns)}
    for name in usual:
        if name in plain:
            return plain[name]
    raise UserError(
        f"{path} has none of the columns {', '.join(usual)}; its columns are "
        f"{shown_names(columns)}; rename the one that is meant"
    )


def _files(source: Source, by_key: Mapping[str, tuple[Report, Named]]) -> dict[str, str]:
    """Return {key: file below the image folder} of the images that are there."""
    root = source.image_root
    assert root is not None
    if not root.exists():
        raise UserError(
            f"{root} does not exist; put the images of Open-I there (docs/medgemma.md says where "
            "they come from), or name their archive or folder as corpus.image_root"
        )
    if is_archive(root):
        return _unpack(root, by_key, source)
    if not root.is_dir():
        raise UserError(f"{root} is neither a folder nor a .tgz, .tar or .zip; check the path")
    found: dict[str, str] = {}
    for path in files_in(root):
        key = key_of(path.name)
        if key in by_key and _is_image(path):
            _add(found, key, str(path.relative_to(root)), by_key)
    return found


def _add(
    found: dict[str, str], key: str, name: str, by_key: Mapping[str, tuple[Report, Named]]
) -> None:
    report, image = by_key[key]
    if image_names(name) != [name]:
        raise UserError(
            f"{name!r} has a {SEPARATOR!r} in its name, or a space at one of its ends; rename it"
        )
    if key in found:
        raise UserError(
            f"image {image.id} of report {report.id} is there twice, as {found[key]} and {name}; "
            "give a folder with one of the two as corpus.image_root"
        )
    found[key] = name


def _unpack(
    archive: Path, by_key: Mapping[str, tuple[Report, Named]], source: Source
) -> dict[str, str]:
    """Unpack the images of an archive that reports show, and no others, into source.unpacked.

    The folder is its owner's alone. It takes the place of an earlier one when all is there.
    """
    folder = source.unpacked
    if folder is None:
        raise UserError(f"{archive} is an archive; say with --images where to unpack its images")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700, parents=True)
    found: dict[str, str] = {}
    try:
        for member, data in progress(
            _images_in(archive, by_key, source), "unpacking", len(by_key), "images"
        ):
            name = member.rsplit("/", 1)[-1].strip()
            _add(found, key_of(name), name, by_key)
            (part / name).write_bytes(data)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found


def _images_in(
    archive: Path, by_key: Mapping[str, tuple[Report, Named]], source: Source
) -> Iterator[tuple[str, bytes]]:
    for member, data in packed_files(archive, ENDINGS, source):
        if key_of(member) in by_key:
            yield member, data
