"""What every corpus format must have, the check of a source, and one more format."""

import copy
import json
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import yaml

from radquant import registry
from radquant.corpus.fetching import OPTIONS, fetch_corpus
from radquant.corpus.formats.kind import CorpusFormat, Source
from radquant.errors import UserError
from radquant.settings import corpus_sources, stages
from radquant.settings.configuration import resolve
from radquant.settings.corpus import Corpus, Headings
from radquant.settings.options import words

REPOSITORY = Path(__file__).parents[1]
TOY = '''"""Format toy: a report a line, its id before the first colon."""

from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.reading import checked, report_from_text
from radquant.corpus.reports import Report

DESCRIPTION = "A file with a report a line."
SOURCES = ("path",)
COLUMNS = False
SPLIT_FILE = False
HEADINGS = True
IMAGES = None


def look(source: Source) -> None:
    pass


def read(source: Source) -> list[Report]:
    lines = [line.partition(":") for line in source.path.read_text().splitlines()]
    reports = [report_from_text(name, text, name, source) for name, _, text in lines]
    return checked(reports, source.name)
'''


@pytest.mark.parametrize("name", registry.CORPUS_FORMATS)
def test_a_format_has_what_the_protocol_asks_for(name: str) -> None:
    kind = registry.load_kind(registry.CORPUS_FORMATS, name)
    assert isinstance(kind, CorpusFormat)
    assert kind.SOURCES
    assert set(kind.SOURCES) <= {"wheel", "path", corpus_sources.TABLES}
    assert kind.DESCRIPTION.endswith(".")
    assert kind.IMAGES in ("reports", "split_file", None)
    assert kind.IMAGES != "split_file" or kind.SPLIT_FILE


def test_formats_are_checked_without_anything_heavy() -> None:
    """A plan of the workflow imports them all to word an error."""
    program = (
        "import sys; from radquant.settings import corpus_sources as c; c.table(); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_page_lists_the_formats() -> None:
    page = (REPOSITORY / "docs" / "inputs.md").read_text(encoding="utf-8")
    assert corpus_sources.table() in page


@pytest.mark.parametrize(
    ("name", "given", "option", "key"),
    [
        (
            "openi",
            set(),
            "give the corpus as one of --path",
            "exactly one of wheel, path, not none",
        ),
        ("openi", {"path", "wheel"}, "one of --path, --wheel,", "not wheel with path"),
        ("table", {"train"}, "--train and --eval belong together", "are given together"),
        ("mimic-tree", {"wheel"}, "is not read from a wheel; use --path", "of path, not wheel"),
        (
            "mimic-tree",
            {"train", "eval"},
            "--train, --eval and the columns are for the format table, not mimic-tree",
            "needs exactly one of path, not train and eval",
        ),
        (
            "openi",
            {"path", "columns"},
            "--train, --eval and the columns are for the format table, not openi",
            "corpus.columns is for format table and not for openi, whose columns are known",
        ),
        (
            "table",
            {"path", "split_file"},
            "--split-file is for mimic-tree and mimic-sectioned, not table",
            "corpus.split_file is not used by format table; remove it",
        ),
        (
            "openi",
            {"path", "headings"},
            "headings are for table, mimic-tree, text-folder, not openi",
            "corpus.headings is for table, mimic-tree, text-folder, not for format openi",
        ),
        (
            "text-folder",
            {"path", "image_column"},
            "--image-column is for openi, table, mimic-tree, mimic-sectioned, not text-folder",
            "format text-folder, but for openi, table, mimic-tree, mimic-sectioned; remove it",
        ),
        (
            "table",
            {"path", "image_column", "views"},
            "--views, --views-file and --wheel-views-file are for openi, not table",
            "corpus.views and views_file choose among images that format openi looks up, not",
        ),
        (
            "table",
            {"path", "image_column", "image archive"},
            "an archive as --image-root is for openi, not table; unpack it",
            "corpus.image_root is an archive, which format openi reads, not format table; unpack",
        ),
        (
            "mimic-sectioned",
            {"path", "image_column"},
            "images of MIMIC are named in the split file; give one with that column",
            "with format mimic-sectioned, task.image_column is a column of corpus.split_file",
        ),
    ],
)
def test_a_wrong_source_gets_one_sentence(
    name: str, given: set[str], option: str, key: str
) -> None:
    assert option in str(corpus_sources.problem(name, given, OPTIONS))
    assert key in str(corpus_sources.problem(name, given, corpus_sources.CONFIGURATION))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("openi", {"wheel"}),
        ("openi", {"wheel", "image_column", "views", "image archive"}),
        ("table", {"train", "eval", "columns", "image_column"}),
        ("mimic-tree", {"path", "split_file", "image_column"}),
        ("mimic-sectioned", {"path"}),
        ("text-folder", {"path", "headings"}),
    ],
)
def test_a_right_source_is_taken(name: str, given: set[str]) -> None:
    assert corpus_sources.problem(name, given, OPTIONS) is None


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus in a format that is one file and one line of the registry."""
    (tmp_path / "toy_format.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_format", raising=False)
    monkeypatch.setitem(registry.CORPUS_FORMATS, "toy", "toy_format")
    (tmp_path / "corpus.toy").write_text("a:FINDINGS: Clear. IMPRESSION: Normal.\nb:A spot.\n")
    return tmp_path / "corpus.toy"


def test_one_more_format_is_read_by_the_script(toy: Path) -> None:
    output = toy.with_name("raw.parquet")
    options = ["--format", "toy", "--path", str(toy), "--output", str(output)]
    with mock.patch.object(sys, "argv", ["fetch_corpus.py", *options]):
        runpy.run_path(str(REPOSITORY / "scripts" / "fetch_corpus.py"), run_name="__main__")
    assert pd.read_parquet(output)[["id", "impression"]].to_numpy().tolist() == [
        ["a", "Normal."],
        ["b", ""],
    ]
    with pytest.raises(UserError, match="the columns are for the format table, not toy"):
        fetch_corpus("toy", Source(path=toy, columns={"text": "report"}))


def test_one_more_format_is_checked_in_a_configuration(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    config["corpus"] = {"name": "own", "format": "toy", "path": str(toy)}
    resolve(config)
    wrong = copy.deepcopy(config)
    wrong["corpus"] = {"name": "own", "format": "toy", "train": "a.csv", "eval": "b.csv"}
    with pytest.raises(UserError, match="format toy needs exactly one of path, not train and eval"):
        resolve(wrong)
    wrong["corpus"] = {**config["corpus"], "split_file": "s.csv"}
    with pytest.raises(UserError, match=r"corpus\.split_file is not used by format toy"):
        resolve(wrong)


GERMAN = {"findings": ["Befund"], "impression": ["Beurteilung"]}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("table", "t.csv"),
        ("table", "t.jsonl"),
        ("text-folder", "a.txt"),
        ("mimic-tree", "p10/p10000032/s1.txt"),
    ],
)
def test_declared_headings_are_for_each_format_that_reads_texts(
    tmp_path: Path, name: str, file: str
) -> None:
    text = "BEFUND: Kein Erguss.\nBeurteilung: Unauffällig.\n"
    contents = {
        ".csv": 'id,text\n1,"' + text + '"\n',
        ".jsonl": json.dumps({"id": "1", "text": text}) + "\n",
        ".txt": text,
    }
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(contents[path.suffix], encoding="utf-8")
    place = path if name == "table" else tmp_path
    [report] = fetch_corpus(name, Source(path=place, headings=GERMAN))
    assert (report.findings, report.impression) == ("Kein Erguss.", "Unauffällig.")
    [report] = fetch_corpus(name, Source(path=place))
    assert report.impression == ""


def test_declared_headings_of_a_table_without_texts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,findings,impression\n1,a,b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"t\.csv has its sections in columns, so corpus\.headings"):
        fetch_corpus("table", Source(path=path, headings=GERMAN))


def test_the_script_takes_declared_headings_as_the_rule_hands_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Befund: Frei.\nBeurteilung und Rat: Gut.\n", encoding="utf-8")
    corpus = Corpus(
        name="own",
        format="text-folder",
        path=str(tmp_path),
        headings=Headings(findings=("Befund",), impression=("Beurteilung und Rat",)),
    )
    part = stages.FETCH_CORPUS[0]
    handed = shlex.split(words({"corpus": corpus}, (part,)))
    output = tmp_path / "raw.parquet"
    with mock.patch.object(sys, "argv", ["fetch_corpus.py", *handed, "--output", str(output)]):
        runpy.run_path(str(REPOSITORY / "scripts" / "fetch_corpus.py"), run_name="__main__")
    table = pd.read_parquet(output)
    assert table[["findings", "impression"]].to_numpy().tolist() == [["Frei.", "Gut."]]
