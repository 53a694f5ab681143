"""The timed section: what is timed, in which order, and what may be said of it."""

import json
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import toy_engine
import yaml
from hypothesis import given
from hypothesis import strategies as st
from reading import report_tables
from report_run import CONFIG, AnyText, make_results
from tiny_models import SCRIPTS
from tiny_reports import model_and_splits
from workflow_helpers import DryRun, copy_repository, dry_run

from radquant import memory_plan, registry
from radquant.errors import UserError
from radquant.files import read_json, write_json
from radquant.generation import speed as timing
from radquant.generation.process_costs import waited_seconds
from radquant.reporting.collect import collect
from radquant.reporting.cost_section import speed_notes, speed_table
from radquant.reporting.markdown import render
from radquant.reporting.speed import BUSY, FASTER, OTHER_ENGINE, SAME, SLOWER, speed_of
from radquant.reporting.summary import summarize

ROUNDING = {"activations": {"bits": 8}}
SIMULATED = {"activations": {"bits": 4, "granularity": "tensor"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_splits(tmp_path_factory.mktemp("data"))


def run_script(data: Path, out: Path, *options: str, also: dict[str, Any] | None = None) -> Any:
    """Time the original, its checkpoint, and `also` of it by what is rounded."""
    command = ["measure_speed.py", f"--timed=original={data / 'original'}"]
    for name, rounding in {"w4a16": None, **(also or {})}.items():
        command.append(f"--timed={name}={data / 'checkpoint'}")
        command += [f"--rounding={name}={json.dumps(rounding)}"] if rounding else []
    command += ["--train", str(data / "train.csv"), "--eval", str(data / "eval.csv")]
    command += ["--prompt-text", "findings : {findings} impression :", "--device", "cpu"]
    command += ["--repeats", "3", "--prompts", "4", "--tokens", "5", "--batch-size", "3"]
    command += ["--seconds", "0.001", *options, "--output", str(out)]
    with mock.patch.object(sys, "argv", command):
        runpy.run_path(str(SCRIPTS / "measure_speed.py"), run_name="__main__")
    return read_json(out)


# --------------------------------------------------------------------------------- the timing


@pytest.mark.parametrize("engine", ["auto", "transformers"])
def test_all_write_as_many_tokens_of_the_same_prompts(
    data: Path, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends an answer: here, to the model, every token does."""
    calls = []
    real = timing.timed

    def noted(ready: Any, passes: int) -> Any:
        calls.append(Path(ready.opened.wanted.model).name)
        monkeypatch.setattr(ready.opened, "end_ids", tuple(range(17)))
        return real(ready, passes)

    monkeypatch.setattr(timing, "timed", noted)
    by_text = {"activations": {"bits": 8, "granularity": "tensor"}}
    also = {"w4a8": ROUNDING, "w4a4": SIMULATED, "naive": by_text, "kv": {"kv_cache": {"bits": 4}}}
    record = run_script(data, tmp_path / "speed.json", "--engine", engine, also=also)
    timed = record["precisions"]
    other = None if engine == "auto" else "simulated"  # the decoder alone has kernels for it
    assert {name: each["why_not"] for name, each in timed.items()} == {
        **dict.fromkeys(("original", "w4a16", "w4a8")),
        "naive": other,
        **dict.fromkeys(("w4a4", "kv"), "simulated"),
    }
    measured = [name for name, each in timed.items() if each["why_not"] is None]
    for name in measured:
        rounds = timed[name]["rounds"]
        assert [each["round"] for each in rounds] == [1, 2, 3]
        for each in rounds:
            assert each["reports"] == 4 * record["passes"]
            assert each["output_tokens"] == 5 * each["reports"]
            assert each["decode_tokens"] == 4 * each["reports"]
            if name != "naive":
                assert each["prompt_tokens"] == timed["original"]["rounds"][0]["prompt_tokens"]
            else:  # whose scale is that of a whole prompt
                whole = sum(timed[name]["prompt_lengths"])
                assert each["prompt_tokens"] == whole * record["passes"]
            together = each["prompt_seconds"] + each["decode_seconds"]
            assert together <= each["wall_seconds"] * 1.01
    assert timed["original"]["prompt_hashes"] == timed["w4a8"]["prompt_hashes"]
    # Each round begins with another one; a first one that was too short is played again.
    count = len(measured)
    original = [place % count for place, name in enumerate(calls) if name == "original"]
    again = [0] if record["passes"] > 1 else []
    assert original == [*again, 0, count - 1, count - 2]
    assert (timed["w4a4"]["rounds"], timed["kv"]["rounds"]) == ([], [])


def test_weights_on_the_disk_are_not_timed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "weights_fit", lambda *_: False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    timed = run_script(data, tmp_path / "speed.json")["precisions"]
    assert {each["why_not"] for each in timed.values()} == {timing.ON_DISK}
    # They fit when all are loaded for the first time, and not later.
    fit = [True, True, *[False] * 20]
    monkeypatch.setattr(memory_plan, "weights_fit", lambda *_: fit.pop(0))
    monkeypatch.setattr(timing, "HELD_BYTES", 0)
    timed = run_script(data, tmp_path / "again.json")["precisions"]
    assert {each["why_not"] for each in timed.values()} == {timing.ON_DISK}
    assert [each["rounds"] for each in timed.values()] == [[], []]


def test_a_round_is_as_long_as_asked_for_by_all(data: Path, tmp_path: Path) -> None:
    options = ("--seconds", "0.15", "--tokens", "3")
    record = run_script(data, tmp_path / "speed.json", *options)
    assert record["passes"] > 1
    rounds = [each for row in record["precisions"].values() for each in row["rounds"]]
    assert len(rounds) == 6
    assert {each["reports"] for each in rounds} == {4 * record["passes"]}
    assert {each["output_tokens"] for each in rounds} == {12 * record["passes"]}
    # The first round of passes was warm by then: about as long, on whatever machine.
    assert max(each["wall_seconds"] for each in rounds) > 0.05


def test_large_models_are_loaded_one_at_a_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "HELD_BYTES", 0)
    import gc
    import weakref

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most, real = [], timing.get_ready

    def noted(*arguments: Any) -> Any:
        gc.collect()
        most.append(len(alive))
        found = real(*arguments)
        alive.add(found.opened.wanted.loaded.model)
        return found

    monkeypatch.setattr(timing, "get_ready", noted)
    record = run_script(data, tmp_path / "speed.json", "--engine", "transformers")
    # What ends a round begins the next. Nothing was left of the one before.
    assert most == [0] * 4
    assert all(len(each["rounds"]) == 3 for each in record["precisions"].values())


@given(st.lists(st.integers(), unique=True, max_size=6), st.integers(0, 20))
def test_rounds_have_everybody_once(names: list[int], turn: int) -> None:
    found = timing.rotated(names, turn)
    assert sorted(found) == sorted(names)
    if names:
        firsts = {timing.rotated(names, turn + n)[0] for n in range(len(names))}
        assert firsts == set(names)


def test_an_engine_that_writes_what_it_likes_is_not_timed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.ENGINES, "toy", toy_engine.__name__)
    record = run_script(data, tmp_path / "speed.json", "--engine", "toy")
    row = record["precisions"]["original"]
    assert (row["why_not"], row["rounds"]) == (timing.OTHER_LENGTH, [])
    found = speed_of(record, ["original", "w4a16"])
    systems = {name: {"simulated": False, "engine": "toy"} for name in found["systems"]}
    performance = {"speed": found, "systems": systems}
    _, _, *rows = report_tables(speed_table(performance))[0]
    assert {cell for row in rows for cell in row[1:]} == {"–"}
    assert any("Not timed: original, w4a16" in note for note in speed_notes(performance))


def test_other_prompts_stop_the_timing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    real = timing.described

    def longer(ready: Any) -> Any:
        found = real(ready)
        packed = found["layers_quantized"] > 0
        return {**found, "prompt_lengths": [n + packed for n in found["prompt_lengths"]]}

    monkeypatch.setattr(timing, "described", longer)
    with pytest.raises(SystemExit):
        run_script(data, tmp_path / "speed.json")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: precision w4a16 reads other prompts than original")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(waited_seconds() is None, reason="the system does not say")
def test_waiting_for_a_core_is_seen() -> None:
    """One core for two that compute: each waits for about half of the time."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    other = subprocess.Popen([sys.executable, "-SIc", "while True: pass"])
    try:
        time.sleep(0.1)
        before, end = waited_seconds(), time.perf_counter() + 0.4
        while time.perf_counter() < end:
            pass
        after = waited_seconds()
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, cores)
    assert before is not None
    assert after is not None
    assert after - before > 0.1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--repeats", "2"], "--repeats is 2, which shows no range; use at least 3, or 0 to"),
        (["--repeats", "0"], "--repeats is 0, which measures nothing; use at least 3"),
        (["--timed", "original"], "--timed original is not of the form NAME=VALUE"),
        (["--timed", "w4a16=x"], "--timed names a precision twice; remove one"),
        (["--rounding", "a={}"], "--rounding names a, which --timed does not; name it there"),
        (["--rounding", "w4a16={"], "--rounding of w4a16 is no JSON; give an object"),
        (
            ["--rounding", 'w4a16={"bits": 8}'],
            "--rounding w4a16.bits is not a known key; the valid ones are",
        ),
        (["--engine", "vllm"], "engine vllm runs in an environment of its own, in which no speed"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    data: Path, tmp_path: Path, capsys: Any, options: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as end:
        run_script(data, tmp_path / "speed.json", *options)
    assert end.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {sentence}"), last
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------- what is said


def timings(
    seconds: list[float], waited: list[float | None] | None = None, **values: Any
) -> dict[str, Any]:
    """The record of a precision whose reports took so many seconds in each round."""
    waits = waited or [0.0] * len(seconds)
    rounds = [
        {
            **{"round": n, "wall_seconds": 8 * each, "cpu_seconds": 8 * each, "reports": 8},
            **{"waited_seconds": wait, "prompt_tokens": 800, "prompt_seconds": 2 * each},
            **{"decode_tokens": 248, "decode_seconds": 6 * each, "output_tokens": 256},
            "too_large_batches": [],
        }
        for n, (each, wait) in enumerate(zip(seconds, waits, strict=True), 1)
    ]
    return {"engine": "lean", "kernel": "none", "why_not": None, "rounds": rounds, **values}


def said(original: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    record = {"precisions": {"original": original, "w4": other}}
    return speed_of(record, ["original", "w4"])["systems"]["w4"]


def test_ratios_pair_the_timings_of_a_round() -> None:
    """A machine that grows slower, for both: the ratio is the same in each round."""
    row = said(timings([1.0, 2.0, 4.0]), timings([0.5, 1.0, 2.0]))
    for key in ("seconds_per_report", "prompt_tokens_per_second", "decode_tokens_per_second"):
        ratio = row["ratios"][key]
        assert (ratio["low"], ratio["median"], ratio["high"]) == (2, 2, 2)
        assert ratio["state"] == FASTER
    assert row["seconds_per_report"] == {"median": 1.0, "low": 0.5, "high": 2.0}
    assert row["decode_tokens_per_second"]["high"] == pytest.approx(248 / 3)
    ratio = said(timings([0.5, 1.0, 2.0]), timings([1.0, 2.0, 4.0]))["ratios"]
    assert ratio["seconds_per_report"]["state"] == SLOWER
    assert ratio["decode_tokens_per_second"]["median"] == 0.5


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=3, max_size=9))
def test_a_speed_is_told_only_if_all_rounds_agree(pairs: list[tuple[float, float]]) -> None:
    row = said(*(timings(list(column)) for column in zip(*pairs, strict=True)))
    ratios = [original / own for original, own in pairs]
    state = row["ratios"]["seconds_per_report"]["state"]
    if min(ratios) > 1.005:
        assert state == FASTER
    elif max(ratios) < 0.995:
        assert state == SLOWER
    elif min(ratios) <= 1 <= max(ratios):
        assert state == SAME


def test_three_pairs_that_were_once_told_are_no_difference() -> None:
    """'1.09 times faster', '0.74 times slower' and '1.93 times faster' were one comparison."""
    row = said(timings([1.09, 0.74, 1.93]), timings([1.0, 1.0, 1.0]))
    assert row["ratios"]["seconds_per_report"]["state"] == SAME


def test_rounds_of_a_busy_machine_are_left_out() -> None:
    quick, slow = [1.0] * 5, [2.0] * 5
    once = said(timings(slow, [0, 0, 2, 0, 0]), timings(quick, [0, 0, 0, 0, 1]))
    assert (once["timings"], once["busy_timings"]) == (5, 1)
    assert once["ratios"]["seconds_per_report"]["rounds"] == 3
    assert once["ratios"]["seconds_per_report"]["state"] == FASTER
    often = said(timings(slow, [0, 0, 2, 2, 0]), timings(quick, [0, 0, 0, 0, 1]))
    assert often["ratios"]["seconds_per_report"]["state"] == BUSY
    assert often["seconds_per_report"] is not None  # its own, of four rounds
    always = said(timings(slow), timings(quick, [1] * 5))
    assert always["seconds_per_report"] is None
    assert always["cpu_seconds_per_report"] == {"median": 1, "low": 1, "high": 1}
    unknown = said(timings(slow, [None] * 5), timings(quick, [None] * 5))
    assert not unknown["waiting_known"]
    assert unknown["ratios"]["seconds_per_report"]["state"] == FASTER


def test_what_does_not_compare_has_no_ratio() -> None:
    other = said(timings([2.0] * 3), timings([1.0] * 3, engine="transformers"))
    assert set(other["ratios"].values()) == {None}
    assert other["why_no_ratio"] == OTHER_ENGINE
    mixed = timings([1.0] * 3)
    for each in mixed["rounds"]:
        each |= {"prompt_seconds": None, "decode_seconds": None, "decode_tokens": None}
    row = said(timings([2.0] * 3), mixed)
    assert row["decode_tokens_per_second"] is None
    assert row["ratios"]["decode_tokens_per_second"] is None
    assert row["ratios"]["seconds_per_report"]["state"] == FASTER


PACES = {"original": [2.0, 2.1, 2.0], "w4a16": [1.0, 1.1, 0.9], "w4a16-rtn": [2.1, 2.0, 2.0]}
SETTINGS = {"repeats": 3, "prompts": 8, "tokens": 32, "seconds": 0.5}


def speed_run(folder: Path, paces: dict[str, Any], **values: Any) -> Any:
    """A finished run with timings; collected."""
    config = {**CONFIG, "speed": SETTINGS, "compute": {"engine": "auto", "device": "cpu"}}
    results = make_results(folder / "results", config)
    precisions = {}
    for name in config["precisions"]:
        record = read_json(results / f"likelihood/{name}.json")
        if name in paces:
            precisions[name] = {**record, **timings(paces[name])}
        else:
            precisions[name] = {"why_not": "simulated", "rounds": []}
    head = {"reports": 8, "tokens": 32, "repeats": 3, "batch_size": 6, **values}
    write_json(results / "speed.json", {**head, "precisions": precisions})
    return collect(results, config)


def test_the_report_leads_with_speeds_and_names_one_only_where_it_is_one(tmp_path: Path) -> None:
    summary = summarize(speed_run(tmp_path, PACES))
    report = render(summary, AnyText(), "figures")
    section = report[report.index("## Size, memory and speed") :]
    header, _, *rows = [line for line in section.splitlines() if line.startswith("|")][:7]
    assert header.startswith("| precision ")
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == [
        *("original", "w4a16", "w4a16-rtn", "w4a8 (simulated)", "w4a4 (simulated)")
    ]
    assert cells[1][1:3] == ["1.00 (0.900 to 1.10)", "2.00× (1.91× to 2.22×)"]
    assert cells[2][2] == SAME
    assert set(cells[3][1:]) == {"–"}
    assert summary["verdict"][-1] == (
        "w4a16 needs 190 MB instead of 538 MB of memory for its weights, and 1.00 s instead of "
        "2.00 s per report."
    )
    assert json.loads(json.dumps(summary["performance"]))["speed"]["systems"]["w4a16"]["timings"]
    whole = "w4a16: a scale is that of a whole prompt"
    assert whole not in " ".join(speed_notes(summary["performance"]))
    by_text = {"bits": 8, "granularity": "tensor"}
    summary["performance"]["systems"]["w4a16"]["activations"] = by_text
    assert whole in " ".join(speed_notes(summary["performance"]))


@pytest.mark.parametrize("pace", [[1.9, 2.2, 2.0], [2.0, 2.1, 2.0]])
def test_the_verdict_names_no_speed_that_is_none(tmp_path: Path, pace: list[float]) -> None:
    summary = summarize(speed_run(tmp_path, PACES | {"w4a16": pace}))
    saving = summary["verdict"][-1]
    assert saving.endswith(" on disk.")
    assert not re.search(r"\d s |faster|slower", saving)
    assert len(saving.split()) <= 25


@pytest.mark.parametrize(
    ("values", "said_of"),
    [({"tokens": 16}, "other tokens"), ({"repeats": 5}, "other repeats")],
)
def test_timings_of_other_settings_are_refused(
    tmp_path: Path, values: dict[str, Any], said_of: str
) -> None:
    with pytest.raises(UserError, match=rf"speed\.json was measured with {said_of}; delete it"):
        speed_run(tmp_path, PACES, **values)


def test_timings_that_are_missing_or_of_another_rounding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="w4a16 should have 3 timings of 32 tokens a report"):
        speed_run(tmp_path / "a", PACES | {"w4a16": [1.0, 1.0]})
    run = speed_run(tmp_path / "b", PACES)
    path = run.folder / "speed.json"
    record = read_json(path)
    record["precisions"]["w4a16"]["activation_layers"] = 3
    write_json(path, record)
    with pytest.raises(UserError, match=r"speed\.json, precision w4a16 had 3 layers .*; delete it"):
        collect(run.folder, run.config)
    del record["precisions"]["w4a16"]["rounds"][1]["cpu_seconds"]
    write_json(path, record)
    with pytest.raises(UserError, match=r"speed\.json: precision w4a16 lacks cpu_seconds"):
        collect(run.folder, run.config)


# --------------------------------------------------------------------------------- the rule


def test_what_times_anew(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    found = dry_run(run, "results/speed.json", "-p", "--cores", "3")
    block = found.out[found.out.index("rule measure_speed:") :].split("\n\n")[0]
    assert "threads: 3" in block  # nothing beside it
    assert "radquant/reporting" not in block
    others = ['generation={"max_new_tokens": 9, "reports": 4}', 'statistics={"margin": 0.02}']
    again = dry_run(run, "results/speed.json", "-p", "--config", *others)
    assert command(again) == command(found)
    # An engine with an environment of its own loads the model for every call.
    config = yaml.safe_load((run / "config" / "mimic-mistral.yaml").read_text())
    config["compute"] = {"engine": "vllm", "device": "cpu"}
    for name in ("w4a16-gptq", "w4a8"):  # which vLLM does not run
        del config["precisions"][name]
    del config["checkpoints"]["gptq-w4"]
    (run / "own.yaml").write_text(yaml.safe_dump(config))
    jobs = dry_run(run, "--configfile", "own.yaml").jobs
    assert (jobs["generate_only"], jobs.get("measure_speed")) == (2, None)


def command(planned: DryRun) -> str:
    lines = planned.out.splitlines()
    return next(line for line in lines if " scripts/measure_speed.py " in line)
