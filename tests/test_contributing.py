"""CONTRIBUTING.md is true: its files are there, and the names are those of the files."""

import ast
import re
from pathlib import Path

import pytest
from test_imports import FLOORS
from workflow_helpers import SMOKE, copy_repository, snakemake

from radquant import registry

ROOT = Path(__file__).parents[1]
SECTIONS = dict(
    re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
)
KINDS = {
    "How to add an engine": ("ENGINES", "Engine"),
    "How to add a stored format": ("STORED_FORMATS", "StoredFormat"),
    "How to add a format that is read only": ("READ_FORMATS", "ReadFormat"),
    "How to add a number type": ("NUMBER_TYPES", "NumberType"),
    "How to add an annotator": ("ANNOTATORS", "Annotator"),
    "How to add a metric": ("METRICS", "Metric"),
    "How to add a measure": ("MEASURES", "Measure"),
    "How to add a corpus format": ("CORPUS_FORMATS", "CorpusFormat"),
    "How to add a model family": ("MODEL_FAMILIES", "Family"),
}
# Commands, words of a configuration, and what stands for any file of a kind.
NO_NAMES = {"kind.py", "slow", "auto", "pip install pre-commit && pre-commit install"}
NO_NAMES |= {"model_type", "python -m radquant.settings"}
# Until every kind has a module, and settings are declared by section.
MADE = all(vars(registry)[table] for table, _ in KINDS.values())
MADE = MADE and (ROOT / "src/radquant/settings/stages.py").is_file()
pytestmark = pytest.mark.skipif(not MADE, reason="the page is ahead of the package")
IS_PATH = re.compile(r"[\w.-]*/[\w./-]*|[\w-]*\.\w+")


def quoted(section: str) -> list[str]:
    """What stands in backticks, outside of blocks."""
    text = re.sub(r"```.*?```", "", SECTIONS[section], flags=re.S)
    return [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", text)]


def paths(section: str) -> list[Path]:
    found = [each for each in quoted(section) if each not in NO_NAMES and IS_PATH.fullmatch(each)]
    return [ROOT / each for each in found]


def kind_file(section: str) -> Path:
    return next(path for path in paths(section) if path.name == "kind.py")


def members(path: Path, name: str) -> set[str]:
    """The names that a protocol or dataclass declares."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (found,) = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name)
    functions = {each.name for each in found.body if isinstance(each, ast.FunctionDef)}
    fields = {
        each.target.id
        for each in found.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    return functions | fields


def test_every_kind_has_a_section() -> None:
    tables = {name for name in vars(registry) if name.isupper()}
    assert tables == {table for table, _ in KINDS.values()}
    assert KINDS.keys() <= SECTIONS.keys()


@pytest.mark.parametrize("section", SECTIONS)
def test_files_are_there(section: str) -> None:
    assert [path for path in paths(section) if not path.exists()] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_names_are_those_of_the_files(section: str) -> None:
    """Each is a word of a file, or of a file in a folder, that the section names."""
    files = [file for path in paths(section) for file in [path, *path.glob("*.py")]]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    words = set(re.findall(r"\w+", text))
    names = [each for each in quoted(section) if re.fullmatch(r"\w+", each)]
    assert [name for name in names if name not in words | NO_NAMES] == []


@pytest.mark.parametrize("section", KINDS)
def test_a_kind_s_section_names_all_that_its_module_needs(section: str) -> None:
    table, protocol = KINDS[section]
    needed = members(kind_file(section), protocol)
    assert needed | {table, protocol} <= set(quoted(section))


def test_every_folder_is_told_of_in_the_order_of_the_floors() -> None:
    told = re.findall(r"^\| `src/radquant/(\w+)/` \|", SECTIONS["Where things are"], re.M)
    assert told == list(FLOORS[1:])


def test_lints_that_remain_are_those_that_the_page_explains(tmp_path: Path) -> None:
    done = snakemake(copy_repository(tmp_path / "run"), "--lint", *SMOKE)
    found = re.findall(r"^ +\* (.+?)\.?:$", done.stderr, re.M)
    told = re.findall(r'^- "(.+?)"', SECTIONS["What Snakemake's linter says"], re.M)
    assert told
    named = {re.sub(r"variable \w+ from", "variable … from", each) for each in found}
    assert named == set(told)
