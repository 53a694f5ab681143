"""Copies of the repository in which tests run the workflow, and what a dry run says."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from modulefinder import ModuleFinder
from pathlib import Path

from snakemake.cli import main

from radquant import registry

REPOSITORY = Path(__file__).parents[1]
SOURCES = ["Snakefile", "config.yaml", "config", "rules", "scripts", "src", "prompts", "envs"]
SMOKE = ["--configfile", "config/smoke.yaml"]
LINKED_BYTES = 1_000_000  # larger results are linked, not copied: weights and wheels


@dataclass(frozen=True)
class DryRun:
    code: int
    out: str
    err: str

    @property
    def jobs(self) -> dict[str, int]:
        """The job table: rule and number of jobs, without the target `all` and the total."""
        table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\n\n", self.out, re.S)
        rows = [line.split() for line in table[1].splitlines()] if table else []
        return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}

    @property
    def code_inputs(self) -> dict[str, set[str]]:
        """The local Python files among each rule's inputs."""
        found = re.findall(r"^(?:local)?rule (\w+):\n    input: (.*)$", self.out, re.M)
        return {
            rule: {name for name in inputs.split(", ") if name.endswith(".py")}
            for rule, inputs in found
        }


OURS = ("radquant", "__main__")


def local_modules(script: Path, chosen: Mapping[str, Sequence[str]] | None = None) -> set[str]:
    """The files that a script imports or may load as a kind, as the standard library finds them.

    chosen: {table: names} of the kinds that count; of other tables all do.
    Names in the repository; without the lists of kinds and of settings.
    """
    path = [str(REPOSITORY / "src"), str(script.parent)]
    finder = ModuleFinder(path=path, excludes=["radquant.settings.stages"])
    finder.run_script(str(script))
    done: set[str] = set()
    while new := {name for name in finder.modules if name.startswith(OURS)} - done:
        done |= new
        for name in new:
            source = Path(finder.modules[name].__file__ or "").read_text(encoding="utf-8")
            for table in re.findall(r"registry\.load_kind\(\s*registry\.(\w+)", source):
                kinds = getattr(registry, table)
                for name in (chosen or {}).get(table, kinds):
                    finder.import_hook(kinds[name])
    files = {Path(module.__file__) for module in finder.modules.values() if module.__file__}
    local = {str(file.relative_to(REPOSITORY)) for file in files if REPOSITORY in file.parents}
    return local - {"src/radquant/registry.py"}


def copy_repository(directory: Path) -> Path:
    """Copy what the workflow consists of into `directory`, with the files' times.

    Also what Python has compiled, which spares each run that work; not what it is just writing.
    """
    ignore = shutil.ignore_patterns("*.pyc.*", "*.egg-info")
    for name in [*SOURCES, "profiles"]:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=ignore)
        else:
            directory.mkdir(exist_ok=True)
            shutil.copy2(source, directory / name)
    return directory


def empty_run(directory: Path, downloads: Path) -> Path:
    """A copy of the repository without results, but for the wheels in `downloads`."""
    run = copy_repository(directory)
    (run / "results").mkdir()
    (run / "results" / "downloads").symlink_to(downloads.resolve())
    return run


def copy_run(run: Path, directory: Path) -> Path:
    """Copy a finished run with its records, so that its copy has nothing to do either."""

    def copy(source: str, target: str) -> None:
        if os.path.getsize(source) > LINKED_BYTES:
            os.link(source, target)
        else:
            shutil.copy2(source, target)

    shutil.copytree(run, directory, copy_function=copy, symlinks=True)
    return directory


def dry_run(directory: Path, *arguments: str) -> DryRun:
    """Run `snakemake -n` in this process, which takes a tenth of the time of a new one.

    It shows all of Snakemake's own output, but for the name of the machine.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(directory),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main(["--quiet", "host", "--dry-run", *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    return DryRun(code, out.getvalue(), err.getvalue())


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", *arguments]


def snakemake(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake as a user does, in a process of its own."""
    return subprocess.run(
        command(*arguments), cwd=directory, capture_output=True, text=True, check=False
    )


def finish(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake and fail with what it said unless it succeeds."""
    done = snakemake(directory, *arguments)
    assert done.returncode == 0, done.stderr[-5000:]
    return done


def errors(text: str) -> list[str]:
    """The sentences that the workflow and its scripts wrote about a mistake."""
    return [line for line in text.splitlines() if line.startswith("error: ")]


def contents(directory: Path, patterns: Sequence[str]) -> dict[str, bytes]:
    paths = sorted(path for pattern in patterns for path in directory.glob(pattern))
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}
