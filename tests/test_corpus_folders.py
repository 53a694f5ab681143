"""Folders and archives of reports, the look of a plan, and what is kept if nothing is left."""

import io
import json
import os
import runpy
import stat
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import yaml

from radquant.corpus.fetching import look, source_of
from radquant.corpus.formats import mimic_sectioned, mimic_tree, openi, table, text_folder
from radquant.corpus.formats.kind import Source
from radquant.corpus.pipeline import Settings, TooFewError, clean_corpus
from radquant.corpus.reports import READING, Report, to_table
from radquant.errors import UserError
from radquant.files import write_table
from radquant.settings.configuration import resolve

REPOSITORY = Path(__file__).parents[1]
DIALECT = ("separator", "encoding")
REPORT = "FINDINGS: Größe normal.\nIMPRESSION: Normal.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "b").mkdir(parents=True)
    (tmp_path / "in" / "a.TXT").write_text(REPORT, encoding="utf-8")
    (tmp_path / "in" / "b" / "c.txt").write_bytes(REPORT.encode("windows-1252"))
    (tmp_path / "in" / ".checkpoints").mkdir()
    (tmp_path / "in" / ".checkpoints" / "a.txt").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    return tmp_path / "in"


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        text_folder.read(Source(path=path))
    assert "secret" not in str(caught.value).replace("secret.txt", "")
    return str(caught.value)


def test_endings_in_capitals_count_and_hidden_folders_do_not(folder: Path) -> None:
    source = Source(path=folder)
    found = text_folder.read(source)
    assert [(r.id, r.findings) for r in found] == [
        ("a", "Größe normal."),
        ("b/c", "Größe normal."),
    ]
    assert source.notes == {("read as", "text files", "windows-1252"): 1}
    packed = folder.with_name("in.zip")
    with zipfile.ZipFile(packed, "w") as archive:
        for path in (*folder.rglob("*.txt"), folder / "a.TXT"):
            archive.write(path, path.relative_to(folder))
        archive.write(folder / "a.TXT", "files/P10/P1000/S50.TXT")
        archive.writestr(
            "x.XML", '<e><uId id=" 1"/><AbstractText Label="FINDINGS">A.</AbstractText></e>'
        )
    assert [r.id for r in mimic_tree.read(Source(path=packed))] == ["s50"]
    assert [r.id for r in openi.read(Source(path=packed))] == ["1"]
    found = {report.id for report in text_folder.read(Source(path=packed))}
    assert found == {"a", "b/c", "files/P10/P1000/S50"}


@pytest.mark.parametrize("target", ["outside/secret.txt", "outside", "nowhere"])
def test_a_link_that_leads_out_of_a_folder_is_refused(folder: Path, target: str) -> None:
    (folder / "b" / "link.txt").symlink_to(folder.parent / target)
    said = refusal(folder)
    assert said == (
        f"{folder}/b/link.txt is a link that leads out of {folder}; put the files themselves there"
    )


def test_a_folder_that_is_a_link_itself_is_read(folder: Path) -> None:
    (folder / "again.txt").symlink_to("a.TXT")  # stays inside
    folder.with_name("other").symlink_to(folder)
    found = text_folder.read(Source(path=folder.with_name("other")))
    assert [report.id for report in found] == ["a", "again", "b/c"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{\\rtf1 secret}", "is RTF; save it as plain text"),
        (b"\x0bMSH|^~\\&|secret\rPID|1\r", "is an HL7 message"),
        (b"%PDF-1.4 secret", "is a PDF; save its text"),
        (b"PK\x03\x04secret", "is a zip archive"),
        (b"<html>secret</html>", "is HTML or XML"),
        (REPORT.encode() + b"secret \xff", ", line 3: not UTF-8"),
    ],
)
def test_a_file_that_is_no_plain_text_is_refused(folder: Path, content: bytes, said: str) -> None:
    (folder / "r.txt").write_bytes(content)
    assert f"{folder}/r.txt{' ' * said[0].isalpha()}{said}" in refusal(folder)


def test_names_that_cannot_be_ids_are_refused(folder: Path) -> None:
    name = os.fsencode(folder) + b"/\xff.txt"
    Path(os.fsdecode(name)).write_text(REPORT)
    assert "the name of a file, '\\udcff.txt', is not UTF-8; rename it" in refusal(folder)
    os.unlink(name)
    (folder / f"{'x' * 240}.txt").write_text(REPORT)
    assert "the id is longer than 200 characters" in refusal(folder)


def test_links_in_an_archive_are_counted(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = len(REPORT.encode())
        archive.addfile(info, io.BytesIO(REPORT.encode()))
        for name, kind in (("b.txt", tarfile.LNKTYPE), ("c.txt", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.txt"
            archive.addfile(info)
    (tmp_path / "a.tgz").write_bytes(file.getvalue())
    source = Source(path=tmp_path / "a.tgz")
    assert len(text_folder.read(source)) == 1
    assert source.notes == {("left out", "archive", "links"): 2}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("a.txt", REPORT)
        link = zipfile.ZipInfo("b.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
    source = Source(path=tmp_path / "a.zip")
    assert [report.id for report in text_folder.read(source)] == ["a"]
    assert source.notes == {("left out", "archive", "links"): 1}


# --------------------------------------------------------------------------------- before a run


def test_a_plan_looks_at_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is there; not at what is on another machine."""
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.docx").write_text("x")
    (tmp_path / "t.csv").write_text("id;txt\n1;a\n")
    (tmp_path / "split.csv").write_text("study_id,split\n1,train\n")
    (tmp_path / "no.tgz").write_text("x")
    wrong = [
        (table, {"path": "t.csv"}, "t.csv has no column 'text', 'findings' or 'impression'"),
        (table, {"train": "away.csv", "eval": "t.csv"}, "t.csv has no column"),
        (text_folder, {"path": "none"}, r"holds no report: no file .* \.txt \(1 end in \.docx\)"),
        (openi, {"path": "no.tgz"}, "is not a folder, a .zip or a .tgz"),
        (openi, {"path": "away", "encoding": "utf-8"}, "says its own encoding"),
        (text_folder, {"path": "away", "separator": ";"}, "no cells to separate"),
        (mimic_tree, {"path": "away", "split_file": "split.csv"}, "has no column 'subject_id'"),
        (mimic_sectioned, {"path": "t.csv"}, "has no column 'study'"),
    ]
    for kind, given, said in wrong:
        places = {k: v if k in DIALECT else tmp_path / v for k, v in given.items()}
        with pytest.raises(UserError, match=said):
            kind.look(Source(**places))
    os.mkfifo(tmp_path / "pipe")  # which would never end
    with pytest.raises(UserError, match="is neither a file nor a folder"):
        text_folder.look(Source(path=tmp_path / "pipe"))
    for kind in (table, text_folder, mimic_tree, openi):
        kind.look(Source(path=tmp_path / "away.csv"))
    monkeypatch.chdir(REPOSITORY)
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    config["corpus"] = {"name": "o", "format": "table", "path": str(tmp_path / "t.csv")}
    config["corpus"] |= {"separator": "tab", "encoding": "windows-1252"}
    run = resolve(config)
    source = source_of(run.corpus, None)
    assert (source.separator, source.encoding) == ("\t", "windows-1252")
    with pytest.raises(UserError, match="its columns are texts of 6 characters"):
        look("table", source)
    config["corpus"]["separator"] = "\t"
    assert source_of(resolve(config).corpus, None).separator == "\t"
    for key, value in (("separator", "ab"), ("separator", '"'), ("encoding", "utf-99")):
        wrong_config = {**config, "corpus": {**config["corpus"], key: value}}
        with pytest.raises(UserError, match=rf"corpus\.{key} (is|has) '{value}'"):
            resolve(wrong_config)


def test_a_look_takes_no_longer_for_a_large_file(tmp_path: Path) -> None:
    for name, content in (
        ("t.csv", "id,text\n1,a\n"),
        ("t.jsonl", '{"id": 1, "text": "a"}\n' * 30),
    ):
        (tmp_path / name).write_text(content)
        os.truncate(tmp_path / name, 20_000_000_000)  # a hole, which takes no room
        started = time.process_time()
        table.look(Source(path=tmp_path / name))
        assert time.process_time() - started < 2


# ------------------------------------------------------------------------------ nothing is left


def reports(count: int, impression: str) -> list[Report]:
    return [
        Report(f"r{n}", findings=f"A spot of {n} mm.", impression=impression) for n in range(count)
    ]


def test_nothing_left_says_what_took_most_and_keeps_the_reasons(tmp_path: Path) -> None:
    raw = to_table([*reports(5, "As above."), Report("x", findings="A.")])
    raw.attrs[READING] = {"missing": {"impression": {"NaN": 1}}}
    write_table(tmp_path / "raw.parquet", raw)
    names = {"train": "csv", "eval": "csv", "rejected": "csv", "funnel": "json"}
    files = [f"--{name}={tmp_path / 'data' / name}.{end}" for name, end in names.items()]
    command = [
        "clean.py",
        f"--raw={tmp_path / 'raw.parquet'}",
        "--inputs=findings",
        "--target=impression",
    ]
    with mock.patch.object(sys, "argv", [*command, *files]), pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / "scripts" / "clean.py"), run_name="__main__")
    assert ended.value.code == 1
    for place in (tmp_path / "data", tmp_path / "data" / "refused"):
        rejected = pd.read_csv(place / "rejected.csv")
        assert rejected["reason"].tolist() == ["no impression"] + ["refers elsewhere"] * 5
        funnel = json.loads((place / "funnel.json").read_text())
        assert funnel["reasons"] == {"no impression": 1, "refers elsewhere": 5}
        assert funnel["examples"]["refers elsewhere"] == ["r0", "r1", "r2"]
        assert funnel[READING] == raw.attrs[READING]
    assert not list((tmp_path / "data").glob("train*"))
    assert not list((tmp_path / "data").glob("eval*"))


def test_the_message_names_three_reports() -> None:
    settings = Settings(["findings"], "impression", eval_reports=1)
    with pytest.raises(
        TooFewError, match=r"5 of 5 were dropped as 'refers elsewhere', such as 'r0', 'r1', 'r2'$"
    ):
        clean_corpus(reports(5, "As above."), settings)
