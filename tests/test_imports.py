"""The folders of the package stand on floors: no import leads upstairs, so none in a circle."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "radquant"
# From the lowest; "" is the package's own files.
FLOORS = (
    *("", "settings", "corpus", "families", "packed", "runtime", "gguf", "checkpoints", "vision"),
    *("kernels", "calibration", "quantization", "verification", "generation", "export", "serving"),
    *("scoring", "reporting", "terminal"),
)
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def floor_of(parts: tuple[str, ...]) -> str:
    """Of a module, by the parts of its name below the package."""
    return parts[0] if parts and (PACKAGE / parts[0]).is_dir() else ""


def imported(path: Path) -> set[tuple[str, ...]]:
    """The modules of the package that a file imports anywhere, by the parts of their names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "radquant"}


def test_every_folder_has_a_floor() -> None:
    folders = {path.parts[0] for path in MODULES if len(path.parts) > 1}
    assert folders == set(FLOORS) - {""}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_import_leads_upstairs(module: Path) -> None:
    own = FLOORS.index(floor_of(module.parts))
    above = {
        ".".join(name) for name in imported(PACKAGE / module) if FLOORS.index(floor_of(name)) > own
    }
    assert not above
