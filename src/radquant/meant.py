"""Files and folders on a command line, and which script makes them of what was given instead.

Each function is the `type` of options. It raises UserError for what is surely another thing, with
the command that helps. The function that reads a path says if there is nothing at it.
"""

import re
from pathlib import Path

from radquant.errors import UserError

HUB = re.compile(r"(?P<id>[\w.-]+/(?P<name>[\w.-]+))(?:@(?P<revision>[\w./-]+))?")
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".xlsx")
MADE = (".csv", ".parquet")  # the tables that this program writes


def model_folder(text: str) -> Path:
    """The folder of a Hugging Face model."""
    path = Path(text)
    if path.is_file() and path.suffix.lower() == ".gguf":
        raise UserError(
            f"{text} is a GGUF file; python scripts/take_checkpoint.py --original ORIGINAL --path "
            f"{text} --output {path.stem} makes a folder of it, once ORIGINAL is the folder of the "
            f"original model; then give {path.stem}"
        )
    hub = HUB.fullmatch(text)
    if hub is None or path.exists():
        return path
    folder = f"models/{hub['name']}"
    raise UserError(
        f"{text} is no folder here; if it is a model on the Hugging Face hub, python "
        f"scripts/fetch_model.py --hub {hub['id']} --revision {hub['revision'] or 'main'} --output "
        f"{folder} fetches it; then give {folder}"
    )


def samples(text: str) -> Path:
    """The calibration samples of scripts/calibration_set.py."""
    path = Path(text)
    if not path.name.lower().endswith(TABLES):
        return path
    raise UserError(
        f"{text} is a table of texts; python scripts/calibration_set.py --model MODEL --texts "
        f"{text} --column COLUMN --output samples.parquet --record set.json makes samples of it "
        "for this MODEL; then give samples.parquet"
    )


def raw_reports(text: str) -> Path:
    """The table of scripts/fetch_corpus.py."""
    path = Path(text)
    if not path.name.lower().endswith(TABLES):
        return path
    raise UserError(
        f"{text} is a table that is not read yet; python scripts/fetch_corpus.py --format table "
        f"--path {text} --output raw.parquet reads it (--findings-column NAME and others say which "
        "column is what); then give raw.parquet"
    )


def old_input(text: str) -> Path:
    """What an older clean.py read, which was a person's own table."""
    raw_reports(text)
    raise UserError(f"--input is no option any more; give --raw {text}, and see --help")


def split(text: str) -> Path:
    """The training or evaluation reports of scripts/clean.py."""
    path = Path(text)
    if not path.is_file() or path.name.lower().endswith(MADE):
        return path
    raise UserError(f"{text} is no table of scripts/clean.py; {cleaned(path)}")


def cleaned(path: Path) -> str:
    """The commands that make training and evaluation reports of a table."""
    return (
        f"python scripts/fetch_corpus.py --format table --path {path} --output raw.parquet reads a "
        "table of reports, and python scripts/clean.py --raw raw.parquet --train train.csv --eval "
        "eval.csv --rejected rejected.csv --funnel cleaning.json makes train.csv and eval.csv"
    )


def annotations(text: str) -> str:
    """The annotations of scripts/annotate.py."""
    path = Path(text)
    if not path.name.lower().endswith((".csv", ".parquet", ".xlsx", ".tsv", ".txt")):
        return text
    raise UserError(
        f"{text} is a table of texts; python scripts/annotate.py --texts {text} --column COLUMN "
        f"--annotator lexicon --output {path.stem}.jsonl annotates one of its columns; then give "
        f"{path.stem}.jsonl"
    )
