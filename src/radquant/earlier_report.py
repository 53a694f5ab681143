"""The report of the run before, which stays until a new one is written.

Snakemake deletes a job's files as it starts, and those that a failed job left. So a second name is
kept for the files of a report, and they get their names back after a failure.
"""

import os
import shutil
from pathlib import Path

from radquant.files import hash_path

KEPT = ".earlier"
FILES = ("report.md", "report.html", "reporting.md", "summary.json", "provenance.json")
FOLDERS = ("figures", "tables")


def keep(results: Path) -> None:
    """Give the files of a report second names, in place of those kept before; nothing without one.

    A report that lacks its page or its text is none: what is kept is then one of before.
    """
    if not all((results / name).is_file() for name in FILES[:2]):
        return
    forget(results)
    for path in _files(results):
        name = results / KEPT / path.relative_to(results)
        name.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, name)
        except OSError:  # a file system without such names
            shutil.copy2(path, name)


def settle(results: Path) -> bool:
    """At the end of a run, give a report that is gone its names back; say whether it was gone."""
    kept = results / KEPT
    gone = kept.is_dir() and not all((results / name).is_file() for name in FILES)
    for path in _files(kept) if gone else ():
        name = results / path.relative_to(kept)
        name.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, name)
    forget(results)
    return gone


def forget(results: Path) -> None:
    shutil.rmtree(results / KEPT, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    """The files of the report in a folder, with the hashes beside them."""
    named = [each for name in FILES for each in (folder / name, hash_path(folder / name))]
    within = [each for name in FOLDERS for each in sorted((folder / name).glob("*"))]
    return [each for each in (*named, *within) if each.is_file()]
