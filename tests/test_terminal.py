"""What a run shows: one line a job, the time left, what failed, and nothing else."""

import contextlib
import io
import logging
import os
import re
import subprocess
import sys
import time
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
from radquant.terminal.screen import STOPPED, Screen, _time, without_traceback

RULES = Path(__file__).parents[1] / "rules"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setattr(expected, "_settings", [])  # what a test before it told
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
    Path("report.log").write_text(
        "at work\nThe report: results/report.md and results/report.html\n"
    )
    start(screen, 1, "report", "report.log")
    tell(screen, LogEvent.JOB_FINISHED, job_id=1)
    Path("clean.log").write_text("error: nothing\n")
    start(screen, 2, "clean", "clean.log")
    tell(screen, LogEvent.JOB_ERROR, level=logging.ERROR, jobid=2, rule_name="clean", log=[])
    assert shown(screen).splitlines()[-5:] == [
        "",  # not that the job was at work
        "The report: runs/one/results/report.md and runs/one/results/report.html",
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
    "text",
    [
        *("{", "[1]", '{"score": 3}', "", "\xff", '{"seconds": 1, "work": []}'),
        *(
            f'{{"seconds": {{"score": {each}}}, "work": {{}}}}'
            for each in ('"long"', "NaN", "Infinity", "-1", "true", "1" + "0" * 400)
        ),
        '{"seconds": {}, "work": {"score": NaN}}',
    ],
)
def test_a_damaged_record_of_an_earlier_run_is_as_none(text: str) -> None:
    expected.LAST.parent.mkdir(parents=True)
    expected.LAST.write_text(text, encoding="latin-1")
    assert expected.begin({"score": 1}).before == Past()


def test_a_record_that_cannot_be_read_is_as_none() -> None:
    expected.LAST.mkdir(parents=True)
    assert expected.begin({"score": 1}).before == Past()


TEXT = "Mrs Miller has a granuloma in the left lung."


@pytest.mark.parametrize(
    "log",
    [
        f"Traceback (most recent call last):\n  File x\nValueError: {TEXT}\n",
        f"error: table.csv, row 3: no text\nException ignored in:\n  ValueError: {TEXT}\n",
        f"{TEXT}\n",
        f"annotate: 1/2 texts, 3 s\n{TEXT}",
    ],
)
def test_what_another_program_says_in_a_log_stays_there(screen: Screen, log: str) -> None:
    Path("annotate.log").write_text(log)
    start(screen, 1, "annotate", "annotate.log", system="w4", part="all")
    tell(
        screen,
        LogEvent.JOB_ERROR,
        level=logging.ERROR,
        jobid=1,
        rule_name="annotate",
        log=["annotate.log"],
    )
    said = shown(screen).splitlines()
    assert "granuloma" not in shown(screen)
    assert said[0] == "failed: annotate: w4"
    assert said[1] in ("error: table.csv, row 3: no text", jobs.UNSAID)
    assert said[2:] == ["its log: annotate.log"]


def test_what_is_said_where_no_report_is_near_is_shown(screen: Screen) -> None:
    Path("build.log").write_text("ERROR: No matching distribution found for vllm\n")
    job = Job("build_env", {"environment": "vllm"}, ("build.log",))
    assert jobs.sentence(job) == "ERROR: No matching distribution found for vllm"


@pytest.mark.parametrize(
    "content", [None, b"", bytes(range(256)) * 200, b"error: \x1b[2J\x07done\n"]
)
def test_a_log_that_is_missing_empty_or_binary_sends_nothing_to_the_terminal(
    screen: Screen, content: bytes | None
) -> None:
    if content is not None:
        Path("clean.log").write_bytes(content)
    told = {"jobid": 1, "rule_name": "clean", "log": ["clean.log"]}
    tell(screen, LogEvent.JOB_ERROR, level=logging.ERROR, **told)
    lines = shown(screen).splitlines()
    assert lines[0] == "failed: clean the corpus"
    assert lines[1].startswith("error: ")
    assert lines[2:] == ["its log: " + ("none was written" if content is None else "clean.log")]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", shown(screen))


def test_a_failed_job_that_was_never_told_of_is_told_without_its_wildcards(screen: Screen) -> None:
    tell(screen, LogEvent.JOB_ERROR, jobid=7, rule_name="generate", log=None, level=logging.ERROR)
    assert shown(screen).splitlines()[0] == "failed: write reports: ?, ?"


@pytest.mark.parametrize("name", ["x, all of it", "all", "a, 1-of-1 b", "a {b}", "a b"])
def test_a_name_stays_as_it_is(name: str) -> None:
    job = Job("encode_images", {"purpose": name, "encoder": name, "shard": "1", "shards": "1"}, ())
    assert phrase(job) == f"encode images: {name}, {name}"


def test_each_failure_of_a_run_that_goes_on_is_told_once(screen: Screen) -> None:
    tell(screen, LogEvent.RUN_INFO, stats={"generate": 3, "total": 3})
    for number in range(3):
        start(screen, number, "generate", precision=f"w{number}", scatteritem="1-of-1")
    for number in range(3):
        tell(
            screen,
            LogEvent.JOB_ERROR,
            level=logging.ERROR,
            jobid=number,
            rule_name="generate",
            log=[],
        )
    screen.close()
    failed = [line for line in shown(screen).splitlines() if line.startswith("failed")]
    assert failed == [f"failed: write reports: w{number}" for number in range(3)]


def test_a_bar_and_lines_do_not_wait_for_each_other() -> None:
    """In a process of its own, which a deadlock would not let end."""
    code = """
import io, logging
from rich.console import Console
from snakemake_interface_logger_plugins.common import LogEvent
from radquant.terminal.screen import Screen

screen = Screen(console=Console(file=io.StringIO(), width=60, force_terminal=True))

def tell(event, **told):
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", None, None)
    record.__dict__.update(told, event=event)
    screen.handle(record)

tell(LogEvent.RUN_INFO, stats={"clean": 1000})
for number in range(1000):
    tell(LogEvent.JOB_INFO, jobid=number, rule_name="clean", wildcards={}, log=[])
    tell(LogEvent.JOB_FINISHED, job_id=number)
screen.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("width", [20, 40, 60, 200])
def test_a_running_job_takes_one_line_of_any_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    screen = Screen(console=console)
    tell(screen, LogEvent.RUN_INFO, stats={"generate": 2, "total": 2})
    start(screen, 1, "generate", precision="a long name with spaces " * 9, scatteritem="1-of-1")
    start(screen, 2, "generate", precision="w4\x1b[2J", scatteritem="1-of-1")
    lines = ["".join(s.text for s in line) for line in console.render_lines(screen, pad=False)]
    screen.close()
    assert len(lines) == 3
    assert all(len(line.rstrip()) <= width and "\x1b" not in line for line in lines)
    assert " 0%" in lines[0]


def test_the_environment_decides_on_colours_and_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not Screen().console.is_interactive  # a file: pytest's capture
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert Screen().console.is_interactive
    assert not Screen().console.no_color
    monkeypatch.setenv("NO_COLOR", "1")
    assert Screen().console.no_color
    monkeypatch.setenv("TERM", "dumb")
    assert not Screen().console.is_interactive


def test_a_terminal_without_a_bar_is_told_of_long_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radquant.terminal.screen.FIRST", 0.0)
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen(console=Console(file=io.StringIO(), width=60, force_terminal=True))
    tell(screen, LogEvent.RUN_INFO, stats={"clean": 1, "total": 1})
    start(screen, 1, "clean")
    end = time.monotonic() + 20
    while "… clean the corpus" not in shown(screen) and time.monotonic() < end:
        time.sleep(0.1)
    screen.close()
    assert "… clean the corpus" in shown(screen)


def test_an_answer_without_a_run_is_shown(screen: Screen) -> None:
    tell(screen, None, "Assuming unrestricted shared filesystem usage.")
    tell(screen, None, "Building DAG of jobs...")
    tell(screen, None, "Deleting results/report.md")
    tell(screen, LogEvent.WORKFLOW_STARTED, "Workflow has started!")
    tell(screen, None, "Elapsed time: 0:00:01")
    assert shown(screen) == "Deleting results/report.md\n"


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0.4 s"), (59.7, "1 min 0 s"), (7199, "1 h")])
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert _time(seconds).startswith(words)


def test_a_traceback_is_one_sentence_that_names_the_file() -> None:
    def told(kind: str, message: str) -> str:
        frame = 'Traceback (most recent call last):\n  File "a", line 1, in b\n    c\n'
        return without_traceback(f"{frame}{kind}: {message}")

    assert told("IsADirectoryError", "[Errno 21] Is a directory: 'a.yaml'") == (
        "error: a.yaml cannot be read (Is a directory); check its name and who may read it"
    )
    assert "is not UTF-8" in told("UnicodeDecodeError", "'utf-8' codec can't decode byte 0xff")
    assert told("ScannerError", "a tab\n  in line 3") == "error: ScannerError: a tab"


def test_a_minus_sign_ends_no_work_where_the_locale_has_none(tmp_path: Path) -> None:
    code = "from radquant.cli import run; run(lambda: print('\u22121.5 F1 points \u2013'))"
    told = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=told, capture_output=True, text=True, check=True
    )
    assert done.stdout == "\\u22121.5 F1 points \\u2013\n"
