"""Invented reports and images in the files that a configuration names, each in its own format."""

import random
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from annotation import report, sentence
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from image_writers import random_gray, write_dicom  # noqa: E402

SIZE = (640, 512)  # pixels of an image; what a model sees of it is of its own size


def make_corpus(config: dict[str, Any], run: Path, evaluated: int, training: int) -> None:
    """Write what `config["corpus"]` names, relative to `run`: so many reports of each kind."""
    corpus = config["corpus"]
    kind = corpus["format"]
    if kind not in WRITERS:
        raise SystemExit(f"error: no reports can be invented in the format {kind}; add a writer")
    rows = invented(evaluated, training)
    WRITERS[kind](config, run, rows)


def invented(evaluated: int, training: int) -> pd.DataFrame:
    """One row a study; those for evaluation first."""
    draw = random.Random(0)
    rows = []
    for number in range(evaluated + training):
        study, patient = 50_000_000 + number, 10_000_000 + number
        findings = " ".join(report(draw)).replace(" .", ".").replace(" ,", ",").capitalize()
        impression = sentence(draw).replace(" .", ".").replace(" ,", ",").capitalize()
        place = f"p{str(patient)[:2]}/p{patient}/s{study}"
        rows.append(
            {
                "study": f"s{study}",
                "study_id": str(study),
                "subject_id": str(patient),
                "split": "test" if number < evaluated else "train",
                # A word of its own, so that no two reports are the same.
                "findings": f"{findings} Image {number} was compared.",
                "impression": f"{impression} Seen on image {number}.",
                "image": f"{place}/{number:08x}.jpg",
            }
        )
    return pd.DataFrame(rows)


def write_sectioned(config: dict[str, Any], run: Path, rows: pd.DataFrame) -> None:
    """MIMIC-CXR's sectioned table, its split file, and images of MIMIC-CXR-JPG."""
    corpus = config["corpus"]
    table = rows[["study", "impression", "findings"]].assign(last_paragraph="", comparison="None.")
    table.to_csv(run / corpus["path"], index=False)
    column = config["task"].get("image_column")
    named = rows.rename(columns={"image": column}) if column else rows
    keys = ["study_id", "subject_id", "split", *([column] if column else [])]
    named[keys].to_csv(run / corpus["split_file"], index=False)
    if column:
        for number, name in enumerate(rows["image"]):
            write_image(run / corpus["image_root"] / name, number)


def write_table(config: dict[str, Any], run: Path, rows: pd.DataFrame) -> None:
    """Two tables of whole reports."""
    corpus = config["corpus"]
    texts = "FINDINGS: " + rows["findings"] + "\nIMPRESSION: " + rows["impression"]
    table = pd.DataFrame({"id": rows["study"], "text": texts})
    table = table.rename(columns={"text": corpus.get("columns", {}).get("text", "text")})
    for key, split in (("train", "train"), ("eval", "test")):
        table[rows["split"] == split].to_csv(run / corpus[key], index=False)


def write_openi(config: dict[str, Any], run: Path, rows: pd.DataFrame) -> None:
    """Open-I's archive of XML and that of its images, two views of each report."""
    corpus = config["corpus"]
    views = []
    with tempfile.TemporaryDirectory() as folder:
        reports, images = Path(folder) / "ecgen-radiology", Path(folder) / "images"
        reports.mkdir()
        for number, row in enumerate(rows.to_dict("records"), 1):
            names = [f"CXR{number}_IM-0001-{view}001" for view in (1, 2)]
            views += zip(names, ("Frontal", "Lateral"), strict=True)
            (reports / f"{number}.xml").write_text(openi_xml(number, row, names), encoding="utf-8")
            for place, name in enumerate(names):
                write_image(images / f"{name}.png", 2 * number + place)
        for archive, content in ((corpus["path"], reports), (corpus["image_root"], images)):
            with tarfile.open(run / archive, "w:gz") as packed:
                packed.add(content, arcname=content.name)
    table = pd.DataFrame(views, columns=["filename", "projection"])
    table.to_csv(run / corpus["views_file"], index=False)


def openi_xml(number: int, row: dict[str, Any], images: list[str]) -> str:
    named = "".join(
        f'<parentImage id="{name}"><caption>Chest</caption></parentImage>' for name in images
    )
    texts = "".join(
        f'<AbstractText Label="{label.upper()}">{row[label]}</AbstractText>'
        for label in ("findings", "impression")
    )
    return (
        f'<?xml version="1.0"?><eCitation><uId id="CXR{number}"/><MedlineCitation><Article>'
        f"<Abstract>{texts}</Abstract></Article></MedlineCitation>{named}</eCitation>"
    )


def write_image(path: Path, number: int) -> None:
    """A gray image in the format of its name's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random_gray(number, SIZE)
    if path.suffix in (".dcm", ""):
        write_dicom(path, random_gray(number, SIZE, levels=4096))
    else:
        Image.fromarray(pixels).save(path)


WRITERS: dict[str, Callable[[dict[str, Any], Path, pd.DataFrame], None]] = {
    "mimic-sectioned": write_sectioned,
    "openi": write_openi,
    "table": write_table,
}
