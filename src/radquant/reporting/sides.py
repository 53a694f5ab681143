"""The two finished runs of a comparison, and the values of their provenances that differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.files import read_json, sha256_file
from radquant.reporting.provenance import FORMAT
from radquant.settings.checkpoint import OWN
from radquant.settings.given import is_given
from radquant.settings.run import BASELINES, ORIGINAL

GIVEN = "given"  # in the place of what made a checkpoint


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    folder: Path
    record: dict[str, Any]  # provenance.json

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.record["config"]["values"])

    @property
    def systems(self) -> list[str]:
        names = [name for name in self.config["precisions"] if name != ORIGINAL]
        made = self.record["results"]  # an earlier version had fewer baselines
        return [ORIGINAL, *names, *(x for x in BASELINES if f"scores/{x}.parquet" in made)]

    def checkpoint(self, system: str) -> str | None:
        precision = self.config["precisions"].get(system)
        return None if precision is None else str(precision["checkpoint"])

    def tool(self, system: str) -> str | None:
        """What made the system's checkpoint; None for the original model and the baselines."""
        recipe = self.config["checkpoints"].get(str(self.checkpoint(system)))
        if is_given(recipe):
            return GIVEN
        return None if recipe is None else str(recipe.get("tool", OWN))

    @property
    def stages(self) -> list[str]:
        return list(self.record["code"]["stages"])

    def reads(self, stage: str, name: str) -> bool:
        """Whether a stage reads a file of the code."""
        return name in self.record["code"]["stages"].get(stage, ())


@dataclass(frozen=True)
class Entry:
    """A value of the provenance that differs; `path` says which, None where it is absent."""

    path: tuple[str, ...]
    a: Any
    b: Any

    @property
    def name(self) -> str:
        return " ".join(self.path)


def read_side(folder: Path) -> Side:
    """Raise UserError where `folder` holds no finished run, or one of another version."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the results folder of a finished run")
    path = folder / "provenance.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; finish the run in {folder} with this version")
    record = read_json(path)
    if not isinstance(record, dict):
        raise UserError(f"{path} is no record of a run; make the report again with this version")
    if record.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {record.get('format')!r} and this program reads {FORMAT}; make the "
            "report again with this version"
        )
    lost = [key for key in ("config", "code", "results") if not isinstance(record.get(key), dict)]
    if lost:
        raise UserError(f"{path} has no {lost[0]}; make the report again with this version")
    return Side(folder, record)


def entries(a: Side, b: Side) -> list[Entry]:
    """All values of the two provenances that differ, in the order of their names."""
    one, other = dict(_leaves(_inputs(a.record))), dict(_leaves(_inputs(b.record)))
    paths = sorted({*one, *other})
    return [
        Entry(path, one.get(path), other.get(path))
        for path in paths
        if one.get(path) != other.get(path)
    ]


def _inputs(record: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance without what follows from the rest of it."""
    code = record["code"]
    return {
        **{key: value for key, value in record.items() if key not in ("format", "results")},
        "config": {
            key: value for key, value in record["config"]["values"].items() if key != "seed"
        },
        "code": {"commit": code["commit"], "changed": code["changed"], **code["files"]},
    }


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of all that is no dict."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield path, value


def changed_files(side: Side) -> list[str]:
    """The result files that are no longer, or not, those that provenance.json names."""
    return [
        name
        for name, digest in side.record["results"].items()
        if not (side.folder / name).is_file() or sha256_file(side.folder / name) != digest
    ]
