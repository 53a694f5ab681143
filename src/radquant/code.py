"""Which code counts: the files that decide what a script or a module does, and what they run on.

All that ask about code ask here. The rules rerun a stage when its code changes. A quantization that
goes on after a kill has a fingerprint. An annotator has an identity, and runs are compared.

The files are found by reading the code, never by importing it. A plan of the workflow takes them
for every rule, and must not wait for torch.
"""

import ast
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from radquant.collecting import without_collecting
from radquant.errors import UserError
from radquant.files import sha256_file

SOURCE = Path(__file__).resolve().parents[1]  # the folder that this package lies in
REGISTRY = "radquant.registry"
# Modules that only name others. A stage's settings reach it as options, which its rule's parameters
# hold. The kinds that it loads count themselves. So a new key or kind does not rerun a stage that
# does not use it.
LISTS = {REGISTRY, "radquant.settings.stages"}
# Modules that write documentation alone. They are code of the stages that import them, and an edit
# reruns those. But no tensor, output or score depends on them, so a comparison of runs does not
# name them as a cause.
DOCUMENTATION = {
    # The README.md of a checkpoint. No stage reads it back, and the hashes in provenance.json leave
    # it out; `checkpoints.writing` imports it to put it beside the weights.
    "src/radquant/checkpoints/card.py",
}
# Variables that keep PyTorch's libraries from instructions that the CPU has. Other instructions add
# in another order, which changes the last bits of every product.
CPU_LIMITS = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "RADQUANT_CPU_LEVEL"),
)
# The beginnings of the names of instructions for products, on x86-64 and on ARM.
LEAVES = (ast.Name, ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
INSTRUCTIONS = re.compile("avx|amx|fma|f16c|asimd|sve|sme(?!p)|bf16|i8mm|fphp")

Kinds = Mapping[str, Iterable[str]]


def files(start: str | Path, kinds: Kinds | None = None, within: str | None = None) -> list[Path]:
    """`start` and every local file that it depends on, `start` first and the others sorted.

    start: a Python file, whose modules lie in the src/ folder of its checkout, or the name of one
    of this package's modules. What it imports counts, transitively, also inside functions, and with
    the `__init__.py` of packages. So do the data files and folders beside a module that one of its
    strings names.
    kinds: {table: names} of the registry's kinds that count. Of a table that is not named all do,
    where a module calls `registry.load_kind` for it. Modules of LISTS never count.
    within: a package; what lies outside of it is neither counted nor followed.

    Raises UserError for a kind that the registry does not have.
    """
    source, path = _place(start)
    known = _modules(source)
    names = {file: name for name, file in known.items()}
    found, new = {path}, [path]
    listed: dict[Path, frozenset[str]] = {}
    data: set[Path] = set()
    while new:
        file = new.pop()
        says = _read(file, _package(names.get(file), file), _stamp(file))
        modules = {names[file]} if file in names else set()
        modules |= says.imports
        for table in says.tables:
            modules |= set(_kinds(known[REGISTRY], table, kinds))
        imported = {known[name] for name in _with_parents(modules) - LISTS if name in known}
        if file not in names:
            imported |= _beside(file, says.imports)
        if within is not None:
            imported = {each for each in imported if _is_within(names.get(each), within)}
        if file.parent not in listed:
            listed[file.parent] = frozenset(os.listdir(file.parent))
        data |= _data_files(file.parent, says.strings, listed[file.parent])
        new += imported - found
        found |= imported
    return [path, *sorted((found | data) - {path})]


def hashes(
    start: str | Path, kinds: Kinds | None = None, within: str | None = None
) -> dict[str, str]:
    """{name: sha256} of `files`, by their names in the checkout."""
    source, _ = _place(start)
    counted = files(start, kinds, within)
    return dict(sorted((name_of(path, source), _sha256(path, _stamp(path))) for path in counted))


def digest(start: str | Path, kinds: Kinds | None = None, within: str | None = None) -> str:
    """One sha256 of the names and contents of `files`."""
    lines = (f"{name}\0{found}\n" for name, found in hashes(start, kinds, within).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def names(start: str | Path, kinds: Kinds | None = None, within: str | None = None) -> list[str]:
    """The names of `files` in the checkout, sorted."""
    source, _ = _place(start)
    return sorted(name_of(path, source) for path in files(start, kinds, within))


def name_of(path: Path, source: Path = SOURCE) -> str:
    """A file's name in the checkout: src/radquant/… wherever the package is installed."""
    if path.is_relative_to(source):
        return f"src/{path.relative_to(source).as_posix()}"
    if path.is_relative_to(source.parent):
        return path.relative_to(source.parent).as_posix()
    return path.name


def script(name: str) -> Path:
    """The script of that name which belongs to this package; raises UserError without one."""
    path = SOURCE.parent / "scripts" / name
    if not path.is_file():
        raise UserError(
            f"{SOURCE.parent} has no scripts beside the package; call the scripts with PYTHONPATH "
            "set to the src/ folder that they belong to"
        )
    return path


def surroundings(with_processor: bool = False) -> dict[str, Any]:
    """What results depend on beside the code: the versions of torch and transformers.

    with_processor: also the instructions that decide the last bits of a product. They take an
    import of torch.
    """
    found: dict[str, Any] = {name: version(name) for name in ("torch", "transformers")}
    if with_processor:
        found |= processor() | {"instructions": instructions()}
    return found


def processor() -> dict[str, Any]:
    """The instructions that PyTorch uses here, and what the environment forbids."""
    import torch

    return {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_limits": {name: os.environ[name] for name in CPU_LIMITS if name in os.environ},
    }


def instructions() -> list[str]:
    """The processor's instructions for products, sorted; none where the system does not say.

    oneDNN and this package's kernels choose among them, which PyTorch's own level does not tell.
    Together with `cpu_limits` they decide the kernels' level, and no kernel must be compiled to
    know it.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []
    told = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return sorted(filter(INSTRUCTIONS.match, told[0].split() if told else ()))


@dataclass(frozen=True)
class _Says:
    """What a Python file says of others."""

    imports: frozenset[str]  # modules, by full names; of names in modules as well
    tables: frozenset[str]  # of the registry, whose kinds it loads
    strings: frozenset[str]  # that could be names of files


Stamp = tuple[int, int]


def _stamp(path: Path) -> Stamp:
    """What changes with a file's content: what is known of it may be kept as long as this holds."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _place(start: str | Path) -> tuple[Path, Path]:
    """The folder of a start's modules, and its file."""
    if isinstance(start, str) and not start.endswith(".py"):
        return SOURCE, _modules(SOURCE)[start]
    path = Path(start)
    for folder in path.parents:
        if (folder / "src" / "radquant" / "__init__.py").is_file():
            return folder / "src", path
    return SOURCE, path


def _modules(source: Path) -> dict[str, Path]:
    """{name: file} of all modules under `source`; a package's file is its `__init__.py`."""
    found: dict[str, Path] = {}
    for folder, folders, entries in os.walk(source / "radquant"):
        folders[:] = [each for each in folders if each != "__pycache__"]
        package = ".".join(Path(folder).relative_to(source).parts)
        for entry in entries:
            if entry == "__init__.py":
                found[package] = Path(folder, entry)
            elif entry.endswith(".py"):
                found.setdefault(f"{package}.{entry.removesuffix('.py')}", Path(folder, entry))
    return found


def _package(name: str | None, path: Path) -> tuple[str, ...]:
    """The parts of the package that a module's relative imports start from."""
    if name is None:
        return ()
    parts = tuple(name.split("."))
    return parts if path.name == "__init__.py" else parts[:-1]


def _with_parents(modules: Iterable[str]) -> set[str]:
    """Modules and the packages that importing them runs."""
    found = set()
    for module in modules:
        parts = module.split(".")
        found |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return found


def _beside(path: Path, modules: Iterable[str]) -> set[Path]:
    """The files beside a script that it imports: Python looks there first."""
    tops = {module.split(".")[0] for module in modules}
    return {file for top in tops if (file := path.with_name(f"{top}.py")).is_file()}


def _is_within(module: str | None, package: str) -> bool:
    return module is not None and f"{module}.".startswith(f"{package}.")


def _data_files(folder: Path, strings: Iterable[str], listed: frozenset[str]) -> set[Path]:
    """The files and folders in `folder` that strings name, unless they are Python's own."""
    found: set[Path] = set()
    for string in strings:
        if string.partition("/")[0] not in listed:
            continue
        path = folder / string
        if path.is_file() and path.suffix != ".py":
            found.add(path)
        elif path.is_dir() and not (path / "__init__.py").is_file() and path != folder:
            found |= {
                each
                for each in path.rglob("*")
                if each.is_file() and "__pycache__" not in each.parts
            }
    return found


def _kinds(registry: Path, table: str, chosen: Kinds | None) -> list[str]:
    """The modules of a table's kinds, of the chosen ones if any are chosen of this table."""
    modules = dict(_tables(registry, _stamp(registry))[table])
    names = modules if chosen is None or table not in chosen else chosen[table]
    for name in names:
        if name not in modules:
            raise UserError(f"{name!r} is unknown; use one of {', '.join(modules)}")
    return [modules[name] for name in names]


@functools.cache
def _sha256(path: Path, stamp: Stamp) -> str:
    return sha256_file(path)


@without_collecting()
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def _tables(registry: Path, stamp: Stamp) -> dict[str, dict[str, str]]:
    """{table: {kind: module}} as the registry's file has them."""
    found = {}
    for node in _tree(registry).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            assert isinstance(target, ast.Name)
            found[target.id] = ast.literal_eval(node.value)
    return found


def _nodes(tree: ast.Module) -> list[ast.AST]:
    """All nodes but names, operators and the like: `ast.walk` takes twice as long with them."""
    found: list[ast.AST] = [tree]
    for node in found:  # which grows meanwhile
        for name in node._fields:
            value = getattr(node, name, None)
            for each in value if isinstance(value, list) else (value,):
                if isinstance(each, ast.AST) and not isinstance(each, LEAVES):
                    found.append(each)
    return found


@functools.cache
@without_collecting()
def _read(path: Path, package: tuple[str, ...], stamp: Stamp) -> _Says:
    """Read what the Python file `path` says. package: where its relative imports start."""
    imports: set[str] = set()
    tables: set[str] = set()
    strings: set[str] = set()
    for node in _nodes(_tree(path)):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and _could_be_a_name(node.value):
                strings.add(node.value)
        elif isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*parents, *filter(None, [node.module])])
            # `from package import name` imports package/name.py if there is one.
            imports.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Call) and _loads_a_kind(node.func):
            tables.add(_table_of(node, path))
    return _Says(frozenset(imports), frozenset(tables), frozenset(strings))


def _could_be_a_name(string: str) -> bool:
    """Of something beside a module: no path from elsewhere, no text."""
    parts = string.split("/")
    return len(string) < 200 and "\n" not in string and not {"", ".", ".."} & set(parts)


def _loads_a_kind(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr == "load_kind"


def _table_of(call: ast.Call, path: Path) -> str:
    """The table of the registry that a call of `load_kind` is given by its name."""
    table = call.args[0] if call.args else None
    if not isinstance(table, ast.Attribute):
        raise ValueError(
            f"{path}, line {call.lineno}: load_kind without registry.TABLE as its first argument, "
            "so nobody can tell which code counts"
        )
    return table.attr
