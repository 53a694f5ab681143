"""What a run shows: one line a job, the time left, what failed, and nothing else."""

import contextlib
import io
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import workflow_helpers
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from snakemake_interface_logger_plugins.common import LogEvent
from tiny_models import tiny_llama

from radquant.files import read_json, write_json
from radquant.settings.configuration import resolve
from radquant.settings.run import Run
from radquant.terminal import expected, jobs, work
from radquant.terminal.expected import Expected, Past
from radquant.terminal.jobs import PHRASES, Job, phrase
from radquant.terminal.screen import STOPPED, Screen

RULES = Path(__file__).parents[1] / "rules"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def screen() -> Screen:
    return Screen(console=Console(file=io.StringIO(), width=60))


def shown(screen: Screen) -> str:
    file = screen.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def tell(screen: Screen, event: LogEvent | None = None, text: str = "", **told: Any) -> None:
    level = told.pop("level", logging.INFO)
    record = logging.LogRecord("snakemake", level, "", 0, text, None, None)
    record.__dict__.update(told, event=event)
    screen.handle(record)


def start(screen: Screen, number: int, rule: str, log: str = "", **wildcards: str) -> None:
    tell(
        screen,
        LogEvent.JOB_INFO,
        jobid=number,
        rule_name=rule,
        wildcards=wildcards,
        log=[log] if log else [],
    )


def test_every_rule_has_words_and_every_word_a_rule() -> None:
    text = "\n".join(file.read_text() for file in RULES.glob("*.smk"))
    rules = set(re.findall(r"^ *(?:use rule \w+ as|rule) (\w+)", text, re.M)) | {"all"}
    assert rules == set(PHRASES)


def test_a_job_is_told_once_with_its_precision(screen: Screen) -> None:
    tell(screen, LogEvent.RUN_INFO, stats={"generate": 2, "all": 1, "total": 3})
    for number in (1, 2):
        start(screen, number, "generate", precision="w4a8", scatteritem=f"{number}-of-2")
        tell(screen, LogEvent.JOB_FINISHED, job_id=number)
    screen.close()
    first, *lines = shown(screen).splitlines()
    assert first == "2 jobs to do"
    assert [re.sub(r"^ *\d+%  | \(.*", "", line) for line in lines] == [
        "write reports: w4a8, shard 1 of 2",
        "write reports: w4a8, shard 2 of 2",
    ]


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (Job("generate", {"precision": "w4", "scatteritem": "1-of-1"}, ()), "write reports: w4"),
        (Job("annotate", {"system": "constant", "part": "all"}, ()), "annotate: constant"),
        (
            Job("annotate", {"system": "w4", "part": "shard-2-of-4"}, ()),
            "annotate: w4, shard 2 of 4",
        ),
        (Job("take_mine", {}, ()), "take mine"),
    ],
)
def test_what_a_job_is_called(job: Job, words: str) -> None:
    assert phrase(job) == words


def test_a_failed_job_shows_its_sentence_and_its_log_alone(screen: Screen) -> None:
    log = Path("clean.log")
    log.write_text("cleaning: 5/9 reports, 3 s\nerror: table.csv, row 3: no text\n")
    start(screen, 1, "clean", str(log))
    told = {"jobid": 1, "rule_name": "clean", "log": [str(log)], "shellcmd": "long", "input": ["a"]}
    tell(screen, LogEvent.JOB_ERROR, level=logging.ERROR, **told)
    tell(screen, None, "Exiting because a job execution failed. Look", level=logging.ERROR)
    tell(screen, LogEvent.ERROR, "At least one job did not complete", level=logging.ERROR)
    assert shown(screen).splitlines() == [
        "failed: clean the corpus",
        "error: table.csv, row 3: no text",
        "its log: clean.log",
    ]


def test_an_error_without_a_job_is_shown(screen: Screen) -> None:
    tell(screen, LogEvent.ERROR, "MissingInputException: nope.csv", level=logging.ERROR)
    assert shown(screen) == "MissingInputException: nope.csv\n"


def test_an_interrupted_run_says_how_to_go_on_once(screen: Screen) -> None:
    start(screen, 1, "clean")
    for text in ("Terminating processes on user request", "Cancelling snakemake on user request."):
        tell(screen, None, text, level=logging.WARNING)
        tell(screen, LogEvent.JOB_ERROR, level=logging.ERROR, jobid=1, rule_name="clean", log=[])
        tell(screen, LogEvent.ERROR, "RuleException: died with SIGINT", level=logging.ERROR)
    assert shown(screen) == f"{STOPPED}\n"


def test_noise_is_left_out_and_warnings_are_not(screen: Screen) -> None:
    tell(screen, None, "Building DAG of jobs...")
    tell(screen, None, "the file is old", level=logging.WARNING)
    tell(screen, None, "Nothing to be done (all requested files are present).")
    assert shown(screen).splitlines() == [
        "the file is old",
        "Nothing to be done (all requested files are present).",
    ]


def test_the_count_in_a_log_is_read() -> None:
    log = Path("quantize.log")
    job = Job("quantize", {}, (str(log),))
    assert jobs.share_done(job) is None
    log.write_text("quantize awq: 8/32 layers, 543 s\nmore\n")
    assert jobs.share_done(job) == ("8/32 layers", 0.25)


@given(
    st.floats(0.1, 50),
    st.dictionaries(st.sampled_from(["generate", "score", "clean"]), st.floats(1, 100), min_size=3),
)
def test_another_machine_is_slower_by_what_finished_jobs_say(
    pace: float, usual: dict[str, float]
) -> None:
    """Where each job takes `pace` times as long as usual, the rest is known exactly."""
    run = Expected({"generate": 3, "score": 2}, {}, Past(), Past(usual), Past())
    run.took["clean"].append(pace * usual["clean"])
    rest = pace * (3 * usual["generate"] + 2 * usual["score"])
    assert run.remaining({}, 1) == pytest.approx(rest)
    assert run.remaining({}, 2) == pytest.approx(rest / 2)
    assert run.remaining({"a": 10 * rest}, 2) == pytest.approx(10 * rest)


def test_an_earlier_run_here_counts_more_than_the_usual_one(screen: Screen) -> None:
    write_json(expected.LAST, {"seconds": {"score": 9.0, "clean": 4.0}, "work": {}})
    run = expected.begin({"score": 2})
    assert run.remaining({}, 1) == 18.0
    run.took["score"].append(3.0)
    expected.remember(run)
    assert read_json(expected.LAST) == {"seconds": {"score": 3.0, "clean": 4.0}, "work": {}}


def test_what_jobs_took_is_kept_in_the_runs_folder(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake is in another folder when it closes its loggers."""
    place = tmp_path / "runs" / "one"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    tell(screen, LogEvent.RUN_INFO, stats={"clean": 1, "total": 1})
    start(screen, 1, "clean")
    tell(screen, LogEvent.JOB_FINISHED, job_id=1)
    monkeypatch.chdir(tmp_path)
    screen.close()
    assert set(read_json(place / expected.LAST)["seconds"]) == {"clean"}
    assert not expected.LAST.exists()


def test_paths_are_shown_from_where_the_user_stands(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "runs" / "one"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    Path("report.log").write_text("The report: results/report.md\n")
    start(screen, 1, "report", "report.log")
    tell(screen, LogEvent.JOB_FINISHED, job_id=1)
    Path("clean.log").write_text("error: nothing\n")
    start(screen, 2, "clean", "clean.log")
    tell(screen, LogEvent.JOB_ERROR, level=logging.ERROR, jobid=2, rule_name="clean", log=[])
    assert shown(screen).splitlines()[-5:] == [
        "The report: results/report.md",
        "in runs/one",
        "failed: clean the corpus",
        "error: nothing",
        "its log: runs/one/clean.log",
    ]


def run_of(**changes: Any) -> Run:
    config = yaml.safe_load((RULES.parent / "config.yaml").read_text())
    with contextlib.chdir(RULES.parent):  # which the prompts are named from
        return resolve({**config, **changes})


USUAL, LEAST = (Past(**each) for each in read_json(Path(str(expected.USUAL))))


def test_the_usual_seconds_are_those_of_the_default_run() -> None:
    amount = work.of_run(run_of(), USUAL.work["check_model"])
    assert {rule: amount[rule] for rule in USUAL.work} == USUAL.work
    default = Expected({}, amount, Past(), USUAL, LEAST)
    for rule, seconds in USUAL.seconds.items():
        assert default.job(rule) == pytest.approx(seconds)


@given(st.floats(1, 100), st.integers(1, 50), st.floats(0.1, 50))
def test_a_larger_model_and_more_reports_take_longer_in_proportion(
    size: float, reports: int, pace: float
) -> None:
    """Of the seconds beyond those that a job takes for nothing."""
    weights = USUAL.work["check_model"]
    settings = run_of(evaluation={"reports": 150 * reports})
    larger = Expected({}, work.of_run(settings, size * weights), Past(), USUAL, LEAST)
    for rule, times in (("generate", size * reports), ("check_model", size), ("clean", 1)):
        start, usual = LEAST.seconds.get(rule, 0), USUAL.seconds[rule]
        if rule == "clean":
            start = 0
        assert larger.job(rule) == pytest.approx(start + times * (usual - start), rel=0.02)
    larger.took["check_model"].append(pace * larger.job("check_model"))
    before = Expected({}, larger.work, Past(), USUAL, LEAST).job("generate")
    assert larger.job("generate") == pytest.approx(pace * before)


def test_an_earlier_run_of_fewer_reports_is_scaled() -> None:
    weights = USUAL.work["check_model"]
    few, many = (
        work.of_run(run_of(evaluation={"reports": count}), weights) for count in (1500, 15000)
    )
    known = Expected({}, many, Past({"generate": 100.0}, few), USUAL, LEAST).job("generate")
    assert known == pytest.approx(1000, rel=0.1)


def test_a_models_weights_are_counted_once_it_is_here(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "model", vocab_size=320)
    given = run_of(model={"name": "tiny", "path": str(tmp_path / "model")})
    state = load_file(tmp_path / "model" / "model.safetensors")
    assert work.weights_of(given) == sum(each.numel() for each in state.values())
    assert work.weights_of(run_of()) is None


def test_a_missing_configuration_is_a_sentence(tmp_path: Path) -> None:
    """By Snakemake itself, which reads the file before any rule is read."""
    repository = RULES.parent
    words = ["--configfile", "nope.yaml", "--snakefile", str(repository / "Snakefile")]
    words += ["--workflow-profile", str(repository / "profiles/default"), "--cores", "1"]
    for more in ([], ["--dry-run"]):
        done = workflow_helpers.snakemake(tmp_path, *words, *more)
        assert done.returncode == 1
        told = (done.stdout + done.stderr).splitlines()
        assert "error: nope.yaml does not exist; check its name and folder" in told
        assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"score": 3}', '{"seconds": {"score": "long"}, "work": {}}', ""]
)
def test_a_damaged_record_of_an_earlier_run_is_as_none(text: str) -> None:
    expected.LAST.parent.mkdir(parents=True)
    expected.LAST.write_text(text)
    assert expected.begin({"score": 1}).before == Past()
