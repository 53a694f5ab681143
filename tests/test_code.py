"""Which code counts: the files of a script or a module, on small checkouts and on this one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from workflow_helpers import local_modules

from radquant import code
from radquant.errors import UserError
from radquant.scoring import lexicon

ROOT = Path(__file__).parents[1]

TREE = {
    "scripts/stage.py": "from radquant import steps\nimport helper\n",
    "scripts/helper.py": "",
    "scripts/other.py": "import radquant.steps.deep\n",
    "src/radquant/__init__.py": "",
    "src/radquant/registry.py": (
        "import importlib\nfrom radquant import errors\n"
        "TOYS: dict[str, str] = {'one': 'radquant.toys.one', 'two': 'radquant.toys.two'}\n"
    ),
    "src/radquant/errors.py": "",
    "src/radquant/steps/__init__.py": "def late():\n    from . import deep\n",
    "src/radquant/steps/deep.py": (
        "from radquant import registry\nfrom ..numbers import PI\n"
        "DATA = 'table.json'\n"
        "def run(name): return registry.load_kind(registry.TOYS, name)\n"
    ),
    "src/radquant/steps/table.json": "{}",
    "src/radquant/numbers.py": "PI, ASSETS, TEXT, UP = 3, 'assets', 'no file', '../numbers.py'\n",
    "src/radquant/assets/a.css": "",
    "src/radquant/assets/more/b.css": "",
    "src/radquant/assets/__pycache__/c.css": "",
    "src/radquant/unread.txt": "",
    "src/radquant/toys/__init__.py": "",
    "src/radquant/toys/one.py": "NAME = 'steps'\n",
    "src/radquant/toys/two.py": "from radquant.toys import parts\n",
    "src/radquant/toys/parts.py": "",
}
ALWAYS = {
    *("scripts/stage.py", "scripts/helper.py", "src/radquant/__init__.py"),
    *("src/radquant/steps/__init__.py", "src/radquant/steps/deep.py", "src/radquant/numbers.py"),
    *("src/radquant/steps/table.json", "src/radquant/toys/__init__.py"),
    *("src/radquant/assets/a.css", "src/radquant/assets/more/b.css"),
}
ONE = {"src/radquant/toys/one.py"}
TWO = {"src/radquant/toys/two.py", "src/radquant/toys/parts.py"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_imports_kinds_and_data_files_count(checkout: Path) -> None:
    stage = checkout / "scripts/stage.py"
    assert set(code.names(stage)) == ALWAYS | ONE | TWO
    assert code.files(stage)[0] == stage
    assert {path.relative_to(checkout).as_posix() for path in code.files(stage)} == (
        ALWAYS | ONE | TWO
    )


def test_only_the_chosen_kinds_count(checkout: Path) -> None:
    stage = checkout / "scripts/stage.py"
    assert set(code.names(stage, {"TOYS": ["one"]})) == ALWAYS | ONE
    assert set(code.names(stage, {"TOYS": []})) == ALWAYS - {"src/radquant/toys/__init__.py"}
    assert set(code.names(stage, {"OTHERS": ["one"]})) == ALWAYS | ONE | TWO
    with pytest.raises(UserError, match="'three' is unknown; use one of one, two"):
        code.files(stage, {"TOYS": ["three"]})


def test_a_new_kind_changes_nothing_for_those_that_run_without_it(checkout: Path) -> None:
    stage, registry = checkout / "scripts/stage.py", checkout / "src/radquant/registry.py"
    before, chosen = code.digest(stage), code.digest(stage, {"TOYS": ["one"]})
    registry.write_text(registry.read_text().replace("'two'", "'new': 'radquant.errors', 'two'"))
    assert code.digest(stage, {"TOYS": ["one"]}) == chosen
    assert code.digest(stage) != before
    assert "src/radquant/errors.py" in code.names(stage)


def test_nothing_outside_a_package_counts_within_it(checkout: Path) -> None:
    deep = checkout / "src/radquant/steps/deep.py"
    assert code.names(deep, within="radquant.steps") == [
        "src/radquant/steps/__init__.py",
        "src/radquant/steps/deep.py",
        "src/radquant/steps/table.json",
    ]
    found = set(code.names(deep, within="radquant.toys"))
    own = {"src/radquant/steps/deep.py", "src/radquant/steps/table.json"}
    assert found == ONE | TWO | own | {"src/radquant/toys/__init__.py"}


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("scripts/stage.py", True),
        ("src/radquant/toys/parts.py", True),
        ("src/radquant/steps/table.json", True),
        ("src/radquant/assets/more/b.css", True),
        ("src/radquant/registry.py", False),
        ("src/radquant/errors.py", False),
        ("src/radquant/unread.txt", False),
        ("src/radquant/assets/__pycache__/c.css", False),
        ("scripts/other.py", False),
    ],
)
def test_the_digest_changes_with_what_counts(checkout: Path, file: str, counts: bool) -> None:
    """In the same process, too, as tests of the workflow plan."""
    stage = checkout / "scripts/stage.py"
    before = code.digest(stage)
    path = checkout / file
    path.write_text(path.read_text() + "\n")
    assert (code.digest(stage) != before) == counts


def test_the_digest_is_of_names_in_the_checkout(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("elsewhere") / "checkout"
    checkout.rename(other)
    absolute = code.digest(other / "scripts/stage.py")
    monkeypatch.chdir(other / "src")
    assert code.digest(Path("../scripts/stage.py")) == absolute
    (other / "src/radquant/steps/deep.py").rename(other / "src/radquant/steps/deeper.py")
    init = other / "src/radquant/steps/__init__.py"
    init.write_text(init.read_text().replace("import deep", "import deeper"))
    assert code.digest(other / "scripts/stage.py") != absolute


def test_kinds_that_cannot_be_followed_are_refused(checkout: Path) -> None:
    deep = checkout / "src/radquant/steps/deep.py"
    deep.write_text(deep.read_text().replace("registry.TOYS", "name"))
    with pytest.raises(ValueError, match=r"deep\.py, line 4: load_kind without registry\.TABLE"):
        code.files(checkout / "scripts/stage.py")


@pytest.mark.parametrize("script", ["generate", "serve", "report"])
def test_a_scripts_code_is_all_that_python_finds(script: str) -> None:
    path = ROOT / "scripts" / f"{script}.py"
    found = {name for name in code.names(path) if name.endswith(".py")}
    assert found == local_modules(path)


def test_data_files_of_this_package_count() -> None:
    report = code.names(ROOT / "scripts/report.py")
    assert "src/radquant/scoring/lexicon_agreement.json" in report
    assets = (ROOT / "src/radquant/reporting/assets").iterdir()
    assert {f"src/radquant/reporting/assets/{path.name}" for path in assets} <= set(report)
    kernels = (ROOT / "src/radquant/kernels/cpp").iterdir()
    sources = {f"src/radquant/kernels/cpp/{path.name}" for path in kernels}
    assert sources <= set(code.names(ROOT / "scripts/generate.py"))
    assert not sources & set(code.names(ROOT / "scripts/score.py"))


def test_documentation_is_named_by_files_that_there_are() -> None:
    assert all((ROOT / name).is_file() for name in code.DOCUMENTATION)
    assert set(code.names(ROOT / "scripts/quantize.py")) >= code.DOCUMENTATION


def test_the_lexicons_identity_is_of_its_own_folder_alone() -> None:
    counted = code.names(lexicon.__name__, within="radquant.scoring")
    assert all(name.startswith("src/radquant/scoring/") for name in counted)
    assert len([name for name in counted if "lexicon" in name]) >= 3
    assert code.digest(lexicon.__name__, within="radquant.scoring")[:12] in lexicon.identity()


def test_versions_need_no_import_of_torch() -> None:
    program = (
        "import sys; from radquant import code; found = code.surroundings(); "
        "assert not {'torch', 'transformers'} & set(sys.modules); print(found)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    import torch
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    assert told.stdout.strip() == str(versions), told.stderr


def test_the_processors_instructions_are_told_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADQUANT_CPU_LEVEL", "avx2")
    found = code.surroundings(with_processor=True)
    assert found["cpu_limits"]["RADQUANT_CPU_LEVEL"] == "avx2"
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    told = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    for name in ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd"):
        assert (name in found["instructions"]) == bool(re.search(rf"\b{name}\b", told))
