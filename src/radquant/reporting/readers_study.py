"""The outputs that a reader study is about, read from a finished run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from radquant.corpus.evaluation import written_reports
from radquant.errors import UserError
from radquant.files import read_json, read_table
from radquant.reporting.checks import check_same_reports, check_unique
from radquant.reporting.readers import FORMAT, Study
from radquant.reporting.readers_files import REFERENCE
from radquant.reporting.reading import Texts, run_id
from radquant.settings.run import ORIGINAL


@dataclass(frozen=True)
class Outputs:
    """Without scores and measures: a study is about texts."""

    precisions: list[str]
    reports: pd.DataFrame
    generations: dict[str, pd.DataFrame]


def read_study(results: str | Path, config: Mapping[str, Any]) -> Study:
    """Read ids, patients and texts of the run under `results`; raises UserError as reports do."""
    results, target = Path(results), config["task"]["target"]
    path = results / "data" / "eval.csv"
    reports = written_reports(
        read_table(path, require=["id", target]), config["generation"].get("reports"), path
    )
    check_unique(reports["id"], path)
    ids = reports["id"].tolist()
    groups = reports["group"].tolist() if "group" in reports else [""] * len(ids)
    names = [ORIGINAL, *(name for name in config["precisions"] if name != ORIGINAL)]
    outputs = {name: _outputs(results, name, config, ids) for name in names}
    written = pd.DataFrame({"id": ids, "reference": reports[target].tolist()})
    columns = {REFERENCE: written["reference"].tolist()}
    columns |= {name: table["output"].tolist() for name, table in outputs.items()}
    return Study(
        run=run_id(Outputs(names, written, outputs)),
        precisions=names,
        unit="patient" if any(groups) else "report",
        patients={
            report: f"patient {group}" if group else f"report {report}"
            for report, group in zip(ids, groups, strict=True)
        },
        texts={
            report: {name: column[row] for name, column in columns.items()}
            for row, report in enumerate(ids)
        },
    )


def read_record(path: Path | None, run: Texts) -> dict[str, Any] | None:
    """Read the readers.json of `run`, None without a path; raises UserError for another run's."""
    if path is None:
        return None
    record: dict[str, Any] = read_json(path)
    if record.get("format") != FORMAT:
        raise UserError(f"{path} comes from another version; make it again with scripts/readers.py")
    if record.get("run") != run_id(run):
        raise UserError(
            f"{path} is of another run's texts; make it again with scripts/readers.py from the "
            "reading files of this run"
        )
    return record


def _outputs(
    results: Path, precision: str, config: Mapping[str, Any], ids: Sequence[str]
) -> pd.DataFrame:
    folder, count = results / "generations" / precision, config["generation"]["shards"]
    shards = [folder / f"shard-{number}-of-{count}.parquet" for number in range(1, count + 1)]
    table = pd.concat([read_table(path, ["id", "output"]) for path in shards], ignore_index=True)
    check_unique(table["id"], folder)
    check_same_reports(sorted(table["id"]), sorted(ids), folder)
    return table.set_index("id").loc[list(ids)].reset_index()
