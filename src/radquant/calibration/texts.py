"""Texts for calibration from outside the corpus: a table of the user's, a file from the hub."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from radquant import hub_errors
from radquant.corpus.cleaning import normalise
from radquant.corpus.files.encoding import decode
from radquant.corpus.files.header import need_column
from radquant.corpus.marks import Notes
from radquant.corpus.tables import cell, open_table, say
from radquant.errors import UserError
from radquant.files import atomic_path, require_file, sha256_file

# Sections that describe the images, and the whole report.
DESCRIBING = ("findings", "impression", "text")
# A passage of so many words is one report's own. Of 1,229 reports of Open-I, 20 held an impression
# of 8 words or more of one of 600 others. None held one of 12 words or more.
OWN_WORDS = 12
SHOWN = 5

Row = Mapping[str, Any]


def from_hub(dataset: str, revision: str, file: str, output: str | Path) -> dict[str, str]:
    """Copy one file of a dataset repository through the user's own Hugging Face cache.

    Returns what is known of it, with the commit that `revision` stands for and the file's sha256.
    Raises UserError when it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(dataset, file, repo_type="dataset", revision=revision))
    except Exception as error:  # the hub's own, and those of whatever HTTP library it uses
        what, advice = hub_errors.told(error)
        raise UserError(
            f"{file} of the hub dataset {dataset!r} at revision {revision!r} could not be fetched "
            f"({what}); {advice}"
        ) from error
    with atomic_path(output) as part:
        shutil.copyfile(path, part)
    # The cache keeps a file under snapshots/COMMIT/, in the repository's own folders.
    commit = path.parents[len(PurePosixPath(file).parts) - 1].name
    return {
        "kind": "hub",
        "id": dataset,
        "revision": commit,
        "file": file,
        "sha256": sha256_file(output),
    }


def read_texts(path: str | Path, column: str) -> list[dict[str, str]]:
    """Return the texts in a column of a CSV, JSONL or Parquet file, or the lines of a .txt file, as
    {id, text}. The id is the number of the row or line in the file.

    Raises UserError for a file that is missing, empty, malformed or not UTF-8, or lacks the column.
    """
    if str(path).lower().endswith(".txt"):
        return [*_lines(Path(path))]
    notes: Notes = Counter()
    table = open_table(path, notes=notes)
    if not table.columns:
        raise UserError(f"{path} is empty; give a file with texts")
    column = need_column(column, table.columns, path)
    texts = [
        {"id": place.removeprefix(f"{path}, "), "text": cell(row, column, place, notes)}
        for place, row in table.rows([column])
    ]
    say(notes)
    return texts


def _lines(path: Path) -> Iterator[dict[str, str]]:
    require_file(path)
    lines = decode(path.read_bytes(), str(path))[0].split("\n")
    if not any(lines):
        raise UserError(f"{path} is empty; give a file with texts")
    for number, line in enumerate(lines, 1):
        yield {"id": f"line {number}", "text": line}


def check_unseen(texts: Sequence[Row], evaluation: Iterable[Row], target: str, name: str) -> None:
    """Raise UserError when a text is one of the evaluation's, or holds a passage of one.

    Compared as `normalise` leaves them. A section (findings, impression) or report of OWN_WORDS
    words or more may not stand anywhere in a text; shorter findings may not be a text. A short
    reference is no leak: "No acute disease." is said of many patients.
    """
    is_known = _recogniser(evaluation, target)
    found = [row["id"] for row in texts if is_known(normalise(row["text"]))]
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise UserError(
            f"{len(found)} of the {len(texts)} calibration texts in {name} are those of evaluation "
            f"reports ({', '.join(found[:SHOWN])}{more}), which calibration must not see; take "
            "them out"
        )


def _recogniser(evaluation: Iterable[Row], target: str) -> Callable[[str], bool]:
    """Return what tells whether a normalised text is known to the evaluation."""
    whole: set[str] = set()
    passages: dict[str, list[list[str]]] = {}  # by their first OWN_WORDS words
    for row in evaluation:
        for section in (name for name in DESCRIBING if name in row):
            words = normalise(str(row[section])).split()
            if len(words) >= OWN_WORDS:
                passages.setdefault(" ".join(words[:OWN_WORDS]), []).append(words)
            elif words and section not in (target, "impression"):
                whole.add(" ".join(words))
    firsts = {begin.split(" ", 1)[0] for begin in passages}

    def is_known(text: str) -> bool:
        words = text.split()
        for start in range(len(words) - OWN_WORDS + 1):
            if words[start] in firsts:  # spares most places the making of a key
                begin = " ".join(words[start : start + OWN_WORDS])
                for passage in passages.get(begin, ()):
                    if words[start : start + len(passage)] == passage:
                        return True
        return text in whole

    return is_known
