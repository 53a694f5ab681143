"""Reading a corpus in each of the formats that it comes in.

Nothing is cleaned or dropped here; a report without the sections that a task needs is dropped, with
its reason, by the next step.
"""

import io
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO
from xml.etree import ElementTree

from radquant.cli import progress
from radquant.corpus.reports import SECTIONS, Report, check_ids, compose
from radquant.corpus.sections import find_sections, is_boilerplate
from radquant.corpus.tables import cell, decode, need_column, read_rows
from radquant.errors import UserError
from radquant.files import BOMB, most_unpacked
from radquant.image_files import SEPARATOR, image_names

Row = tuple[str, dict[str, str]]
FORMATS = ("openi", "table", "mimic-tree", "mimic-sectioned", "text-folder")
FIELDS = ("id", "group", "study", "text", *SECTIONS, "split")
# Which columns of a table are taken for a field that the user did not name.
_USUAL = {
    "id": ("id", "study_id", "study"),
    "group": ("group", "patient", "patient_id", "subject_id"),
    "study": ("study", "study_id"),
    "text": ("text", "report"),
}
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    # A validation split is for choosing a model, which a comparison of precisions never does.
    **dict.fromkeys(("validate", "validation", "valid", "val", "dev"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "eval"),
    "": "",
}


def read_openi(source: Path | BinaryIO, name: str) -> list[Report]:
    """Read the Open-I (Indiana University) chest X-ray reports: XML in a folder, .zip or .tgz.

    The corpus does not say which reports are of one patient.
    """
    reports = []
    for member, data in _members(source, name, ".xml"):
        try:
            root = ElementTree.fromstring(data)
        except ElementTree.ParseError as error:
            line = error.position[0]
            raise UserError(f"{member}, line {line}: not well-formed XML; fetch it again") from None
        except (LookupError, ValueError):
            raise UserError(
                f"{member}, line 1: its encoding is not known; save it as UTF-8"
            ) from None
        sections: dict[str, str] = {}
        for element in root.iter("AbstractText"):
            label = element.get("Label", "").lower()
            if label in SECTIONS:
                sections[label] = "".join(element.itertext()).strip()
        identifier = root.find("uId")
        report = Report(
            id=identifier.get("id", "") if identifier is not None else "",
            where=member,
            **sections,
        )
        report.study = report.id
        report.text = compose(report)
        reports.append(report)
    return _finish(reports, name)


def read_text_folder(folder: Path) -> list[Report]:
    """Read every .txt of a folder (.zip, .tgz); the id is the path without the ending."""
    reports = []
    for member, data in _members(folder, str(folder), ".txt"):
        name = member.removeprefix(f"{folder}/").removesuffix(".txt")
        reports.append(_from_text(name, decode(data, member), where=member))
    return _finish(reports, folder)


def read_mimic_tree(
    root: Path, split_file: Path | None, image_column: str | None = None
) -> list[Report]:
    """Read MIMIC-CXR's files/pXX/pID/sID.txt under `root` (a folder, .zip or .tgz).

    id and study are "sID", the group is the patient "pID". With MIMIC-CXR-JPG's split file, test is
    for evaluation, train and validate are for training; a study that it lacks has no split.
    image_column: as for `read_mimic_images`.
    """
    studies = read_mimic_split(split_file) if split_file else {}
    images = read_mimic_images(split_file, image_column)
    reports = []
    for member, data in _members(root, str(root), ".txt"):
        match = re.search(r"(p\d+)/(s\d+)\.txt$", member)
        if match is None:
            continue  # README, LICENSE
        patient, study = match[1], match[2]
        report = _from_text(study, decode(data, member), where=member)
        report.group, report.study = patient, study
        report.split = studies.get(study, ("", ""))[1]
        report.images = images.get(study, "")
        reports.append(report)
    _check_some_split(reports, split_file)
    return _finish(reports, root)


def read_mimic_sectioned(
    path: Path, split_file: Path | None, image_column: str | None = None
) -> list[Report]:
    """Read mimic_cxr_sectioned.csv: study, impression, findings, last_paragraph, comparison.

    Where neither findings nor impression was found, its last paragraph is the findings, unless that
    is boilerplate. Patients and splits are in the split file; without it every study is taken for a
    patient of its own. image_column: as for `read_mimic_images`.
    """
    studies = read_mimic_split(split_file) if split_file else {}
    images = read_mimic_images(split_file, image_column)
    columns, rows = read_rows(path)
    for column in ("study", "impression", "findings"):
        need_column(column, columns, path)
    reports = []
    for place, row in _shown(rows):
        sections = {name: cell(row, name, place) for name in SECTIONS}
        last = cell(row, "last_paragraph", place)
        if not sections["findings"].strip() and not sections["impression"].strip():
            sections["findings"] = "" if is_boilerplate(last) else last
        study = cell(row, "study", place)
        study = f"s{study}" if study.isdecimal() else study
        group, split = studies.get(study, ("", ""))
        report = Report(id=study, group=group, study=study, split=split, where=place, **sections)
        report.text = compose(report)
        report.images = images.get(study, "")
        reports.append(report)
    _check_some_split(reports, split_file)
    return _finish(reports, path)


def read_mimic_split(path: Path) -> dict[str, tuple[str, str]]:
    """Return {"sID": ("pID", 'train' | 'eval')} from mimic-cxr-2.0.0-split.csv[.gz]."""
    columns, rows = read_rows(path)
    for column in ("study_id", "subject_id", "split"):
        need_column(column, columns, path)
    studies: dict[str, tuple[str, str]] = {}
    for place, row in rows:
        study = f"s{cell(row, 'study_id', place)}"
        found = (f"p{cell(row, 'subject_id', place)}", _split(cell(row, "split", place), place))
        if studies.setdefault(study, found) != found:
            raise UserError(f"{place}: study {study} is in two splits or of two patients")
    return studies


def read_mimic_images(path: Path | None, column: str | None) -> dict[str, str]:
    """Return {"sID": its image files, in the order of the rows} from the split file.

    A row of that file is an image of MIMIC-CXR-JPG; `column`, which the user adds, names its file
    or is empty for one that is not to be shown. Without a column nothing is read.
    """
    if column is None:
        return {}
    if path is None:
        raise UserError("images of MIMIC are named in the split file; give one with that column")
    columns, rows = read_rows(path)
    need_column(column, columns, path)
    need_column("study_id", columns, path)
    found: dict[str, list[str]] = {}
    for place, row in rows:
        names = found.setdefault(f"s{cell(row, 'study_id', place)}", [])
        names += image_names(cell(row, column, place))
    return {study: SEPARATOR.join(names) for study, names in found.items()}


def read_table_files(
    columns: Mapping[str, str],
    path: Path | None = None,
    train: Path | None = None,
    evaluation: Path | None = None,
) -> list[Report]:
    """Read one table, or one for training and one for evaluation, whose split is then their file.

    `columns` maps a field ('id', 'group', 'study', 'text', 'findings', 'impression', 'indication',
    'comparison', 'images', 'split') to the column that holds it. A field that it does not name is
    taken from a column of that name, but images never (for id also study_id or study, for group
    also patient, patient_id or subject_id, for text also report). Sections without a column are
    found in the text; text without a column is put together from the sections; without an id,
    "row-N" numbers the records.
    """
    if path is not None:
        return _finish(_table(path, columns, ""), path)
    assert train is not None
    assert evaluation is not None
    first = _table(train, columns, "train")
    second = _table(evaluation, columns, "eval")
    for name, found in ((train, first), (evaluation, second)):
        if not found:
            raise UserError(f"{name} holds no report; check the file")
    return _finish(first + second, train)


def _table(path: Path, asked: Mapping[str, str], split: str) -> list[Report]:
    available, rows = read_rows(path)
    columns = _choose_columns(available, asked, path)
    from_text = [name for name in SECTIONS if name not in columns]
    reports = []
    for number, (place, row) in enumerate(_shown(rows), 1):
        fields = {field: cell(row, column, place) for field, column in columns.items()}
        fields.setdefault("id", f"{split or 'row'}-{number}")
        fields["split"] = split or _split(fields.get("split", ""), place)
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


def _from_text(identifier: str, text: str, where: str) -> Report:
    found = find_sections(text)
    return Report(
        id=identifier,
        text=text,
        where=where,
        **{name: getattr(found, name) for name in SECTIONS},
    )


def _split(value: str, place: str) -> str:
    name = value.strip().lower()
    if name not in SPLITS:
        shown = ", ".join(filter(None, SPLITS))
        raise UserError(f"{place}: the split is none of {shown}")
    return SPLITS[name]


def _check_some_split(reports: list[Report], split_file: Path | None) -> None:
    if split_file and reports and not any(report.split for report in reports):
        raise UserError(f"{split_file} holds none of the corpus's studies; check that it belongs")


def _shown(rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows, with progress; they are counted first, so they are all held in memory."""
    held = list(rows)
    return progress(held, "reading", len(held), "reports")


def _finish(reports: list[Report], source: Path | str) -> list[Report]:
    if not reports:
        raise UserError(f"{source} holds no report; check the path and the corpus's format")
    check_ids(reports)
    return reports


def _members(source: Path | BinaryIO, name: str, ending: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files that end so in a folder, .zip or .tar(.gz), by name.

    Archives are read in place. Hidden files, among them the "._" companions that macOS adds to
    archives, are left out.
    """
    if isinstance(source, Path) and not source.exists():
        raise UserError(f"{source} does not exist; check the path")
    if isinstance(source, Path) and source.is_dir():
        paths = sorted(path for path in source.rglob(f"*{ending}") if path.is_file())
        for path in progress(paths, "reading", len(paths), "files"):
            if not path.name.startswith("."):
                yield str(path), path.read_bytes()
        return
    try:
        if isinstance(source, Path):
            with open(source, "rb") as file:
                found = dict(_archive(file, name, ending))
        else:
            found = dict(_archive(source, name, ending))
    # An encrypted member is a RuntimeError, an unknown compression a NotImplementedError.
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError, RuntimeError):
        raise UserError(
            f"{name} is not a folder, a .zip or a .tgz that can be read; fetch it again"
        ) from None
    for member in sorted(found):
        yield f"{name}/{member}", found[member]


def _archive(file: BinaryIO, name: str, ending: str) -> Iterator[tuple[str, bytes]]:
    """Yield (member, content); raises UserError when they are out of proportion to the file.

    Nothing is written anywhere, so that a member's name may be what it likes; links are left out.
    """
    left = most_unpacked(file.seek(0, os.SEEK_END))
    file.seek(0)
    for member, content in _packed(file, ending):
        data = content.read(left + 1)
        left -= len(data)
        if left < 0:
            raise UserError(f"{name}/{member}: {BOMB}")
        yield member, data


def _packed(file: BinaryIO, ending: str) -> Iterator[tuple[str, IO[bytes]]]:
    def wanted(member: str) -> bool:
        return member.endswith(ending) and not member.rpartition("/")[2].startswith(".")

    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in filter(wanted, archive.namelist()):
                with archive.open(name) as content:
                    yield name, content
        return
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:*") as tar:
        for member in tar:
            packed = tar.extractfile(member) if member.isfile() and wanted(member.name) else None
            if packed is not None:
                yield member.name, packed


def open_in_wheel(wheel: Path, member: str) -> BinaryIO:
    """Return the file `member` of a wheel, in memory; raises UserError listing archives if not."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            if member in names:
                return io.BytesIO(archive.read(member))
    except (zipfile.BadZipFile, zlib.error):
        raise UserError(
            f"{wheel} is not a wheel that can be read; delete it and run again"
        ) from None
    archives = [name for name in names if name.endswith((".tgz", ".tar.gz", ".zip"))]
    raise UserError(f"{wheel} has no file {member!r}; its archives are {', '.join(archives)}")
