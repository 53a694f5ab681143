"""provenance.json, and what scripts/compare_runs.py says of two runs."""

import copy
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from reading import read_jsonl
from report_run import CONFIG, HOSTILE, change_record, change_table, make_results

from radquant.cli import AT_WORK
from radquant.errors import UserError
from radquant.files import read_json, read_table, write_json, write_jsonl, write_table
from radquant.reporting import causes, comparison, sides
from radquant.reporting.collect import collect
from radquant.reporting.provenance import code_version, provenance
from radquant.settings.run import BASELINES

ROOT = Path(__file__).parents[1]


def finish(folder, config=CONFIG):
    """Make the run's provenance.json, as its report does."""
    ids = read_table(folder / "data/eval.csv")["id"]
    for name in BASELINES:
        texts = pd.DataFrame({"id": ids, "output": "A nodule."})
        write_table(folder / f"generations/{name}/all.parquet", texts)
    write_json(folder / "provenance.json", provenance(collect(folder, config)))
    return sides.read_side(folder)


@pytest.fixture
def runs(tmp_path):
    return [make_results(tmp_path / name) for name in ("one", "other")]


def compared(runs, config=CONFIG):
    """What is said of the first run as it is made and the second as the test has changed it."""
    both = finish(runs[0]), finish(runs[1], config)
    return comparison.render(*both), {row.system: row for row in comparison.moved(*both)}


def explanation(text, system):
    (line,) = [line for line in text.splitlines() if line.startswith(f"- {system}")]
    return line


def test_equal_runs_have_equal_provenance_and_nothing_moved(runs):
    text, found = compared(runs)
    one, other = (run / "provenance.json" for run in runs)
    assert one.read_bytes() == other.read_bytes()
    assert "provenance\n\nNothing.\n" in text
    assert "equal, bit for bit" in text
    assert not any(row.what for row in found.values())


def test_a_run_of_a_version_with_fewer_baselines_is_compared_without_the_new_one(runs):
    both = finish(runs[0]), finish(runs[1])
    del both[0].record["results"]["scores/nearest.parquet"]
    (runs[0] / "scores/nearest.parquet").unlink()
    found = [row.system for row in comparison.moved(*both)]
    assert found == [*both[1].systems[:-1]]
    assert both[1].systems[-1] == "nearest"


def test_provenance_names_every_file_by_its_hash_and_holds_no_text_and_no_time(runs):
    record = finish(runs[0]).record
    for name, digest in {**record["results"], **record["data"]}.items():
        assert hashlib.sha256((runs[0] / name).read_bytes()).hexdigest() == digest
    assert len(record["results"]) == 5 * 4 + 3  # five precisions, two of them with two shards each
    prompt = hashlib.sha256((ROOT / "prompts/impression.txt").read_bytes()).hexdigest()
    assert record["prompts"]["generation"] == prompt
    text = json.dumps(record)
    assert "odule" not in text
    assert "seconds" not in text


def test_the_code_is_that_of_the_repository():
    code = code_version(CONFIG)
    python = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    assert {path.relative_to(ROOT).as_posix() for path in python} <= set(code["files"])
    for name, digest in code["files"].items():
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == digest
    if (ROOT / ".git").exists():
        words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        assert code["commit"] == subprocess.check_output(words, text=True).strip()


def test_another_machine_explains_likelihoods_and_their_size_is_right(runs):
    for path in runs[1].glob("generations/*/*.json"):
        change_record(path, cpu_capability="AVX512")
    for path in runs[1].glob("likelihood/*.json"):
        change_record(path, cpu_capability="AVX512")
    before = read_table(runs[0] / "likelihood/w4a8.parquet")
    change_table(
        runs[1] / "likelihood/w4a8.parquet",
        lambda table: table.assign(nll=table["nll"].where(table.index != 3, table["nll"] + 0.25)),
    )
    text, found = compared(runs)
    row = found["w4a8"]
    assert (row.outputs, row.scored, row.likelihoods) == (0, 0, 1)
    assert row.largest_nll == pytest.approx(0.25 / 10)
    assert row.nll == pytest.approx(0.25 / 10 / len(before))
    assert "stages likelihood w4a8 cpu_capability" in explanation(text, "w4a8, likelihood")
    assert "stages generate" not in explanation(text, "w4a8, likelihood")
    assert explanation(text, "w4a16:").endswith("equal, bit for bit.")


def test_what_nothing_explains_is_said(runs):
    change_table(
        runs[1] / "scores/w4a16.parquet", lambda table: table.assign(complete=table["complete"] / 2)
    )
    text, found = compared(runs)
    half = read_table(runs[0] / "scores/w4a16.parquet")["complete"].mean() / 2
    assert found["w4a16"].changes["complete"] == pytest.approx(-half)
    assert found["w4a16"].what == {"scores"}
    assert "nothing in the provenance explains it" in explanation(text, "w4a16, scores")


def test_calibration_explains_only_what_its_checkpoint_changed(runs):
    change_record(runs[1] / "calibration/set.json", samples=16)
    record = runs[1] / "checkpoints/awq-w4/quantization.json"
    change_record(record, files={"model.safetensors": "d" * 64})
    for name in ("w4a16", "w4a16-rtn"):
        change_table(
            runs[1] / f"likelihood/{name}.parquet", lambda table: table.assign(nll=table.nll + 1)
        )
    text, _ = compared(runs)
    assert "calibration samples (8 → 16)" in explanation(text, "w4a16, likelihood")
    assert "nothing in the provenance" in explanation(text, "w4a16-rtn, likelihood")  # of rtn-w4


def test_another_setting_explains_outputs_and_the_shards_do_not(runs, tmp_path):
    config = copy.deepcopy(CONFIG)
    config["generation"] |= {"max_new_tokens": 8}
    config["statistics"] |= {"resamples": 100}
    path = runs[1] / "generations/w4a8/shard-1-of-2.parquet"
    table = read_table(path)
    table.loc[0, "output"] = "Another nodule."
    write_table(path, table)
    notes = runs[1] / "annotations/w4a8/shard-1-of-2.jsonl"
    lines = read_jsonl(notes)
    digest = hashlib.sha256(b"Another nodule.").hexdigest()
    write_jsonl(notes, [lines[0] | {"text_hash": digest}, *lines[1:]])
    text, found = compared(runs, config)
    assert found["w4a8"].outputs == 1
    line = explanation(text, "w4a8, outputs")
    assert "config generation max_new_tokens (– → 8)" in line
    assert "resamples" not in line
    assert "config statistics resamples" in text  # it differs all the same


def test_every_entry_of_a_provenance_has_a_known_effect(runs):
    """Each of them, taken away, is an entry of which it is known what it can move."""
    a, b = finish(runs[0]), sides.Side(runs[1], copy.deepcopy(finish(runs[1]).record))
    for section in ("packages", "machine", "prompts", "data", "calibration", "stages"):
        b.record[section] = {}
    b.record["code"]["files"] = {}
    for name in ("corpus", "task", "generation", "scoring", "statistics", "model"):
        b.record["config"]["values"][name] = {}
    b.record["seed"] += 1
    differing = sides.entries(a, b)
    assert len(differing) > 200
    for system in ("original", "w4a8"):
        between = {"", "data", "original", "checkpoint"}
        moves = {entry.name: causes.can_move(entry, system, between, a, b) for entry in differing}
        assert moves["seed"] == causes.MODEL
        assert moves["code src/radquant/scoring/lexicon.py"] == {"scores"}
        assert moves["code src/radquant/reporting/markdown.py"] == set()
        assert moves["code scripts/clean.py"] == causes.ALL


EVERYTHING = {"", "data", "original", "fetched", "checkpoint"}  # differs that lies between
ENGINE = {"outputs", "likelihood"}


@pytest.mark.parametrize(
    ("file", "original", "quantized", "baseline"),
    [
        ("src/radquant/serving/http_server.py", set(), set(), set()),
        ("scripts/serve.py", set(), set(), set()),
        ("src/radquant/checkpoints/card.py", set(), set(), set()),
        ("src/radquant/reporting/verdict.py", set(), set(), set()),
        ("src/radquant/reporting/assets/explorer.js", set(), set(), set()),
        ("src/radquant/scoring/lexicon_agreement.json", set(), set(), set()),
        ("src/radquant/export/source.py", set(), set(), set()),
        ("src/radquant/registry.py", set(), set(), set()),
        ("src/radquant/environments.py", set(), set(), set()),
        ("rules/report.smk", set(), set(), set()),
        ("rules/speed.smk", set(), set(), set()),
        ("src/radquant/kernels/cpu.py", ENGINE, ENGINE, set()),
        ("src/radquant/kernels/cpp/linear.cpp", ENGINE, ENGINE, set()),
        ("src/radquant/generation/likelihood.py", ENGINE, ENGINE, set()),
        ("scripts/join_likelihood.py", {"likelihood"}, {"likelihood"}, set()),
        ("src/radquant/checkpoints/writing.py", ENGINE, ENGINE, set()),
        ("src/radquant/quantization/awq.py", set(), ENGINE, set()),
        ("scripts/quantize_autoawq.py", set(), set(), set()),  # no checkpoint is of its making
        ("src/radquant/scoring/scores.py", {"scores"}, {"scores"}, {"scores"}),
        ("src/radquant/scoring/lexicon_terms.py", {"scores"}, {"scores"}, {"outputs", "scores"}),
        ("src/radquant/scoring/baselines.py", set(), set(), {"outputs"}),
        ("src/radquant/generation/nearest_examples.py", ENGINE, ENGINE, {"outputs"}),
        ("scripts/clean.py", {*ENGINE, "scores"}, {*ENGINE, "scores"}, {*ENGINE, "scores"}),
    ],
)
def test_an_edit_moves_what_the_stages_make_that_read_the_file(
    runs, file, original, quantized, baseline
):
    both = [finish(run) for run in runs]
    assert file in both[0].record["code"]["files"]
    entry = sides.Entry(("code", file), "a" * 64, "b" * 64)
    wanted = {"original": original, "w4a8": quantized, "copy-input": baseline}
    for system, moves in wanted.items():
        assert causes.can_move(entry, system, EVERYTHING, *both) == moves, system


def test_an_edit_of_the_server_or_the_card_is_no_reason(runs):
    """Beside one of a kernel, which is."""
    table = runs[1] / "likelihood/w4a8.parquet"
    change_table(table, lambda found: found.assign(nll=found["nll"] + 1))
    both = [finish(run) for run in runs]
    for name in ("serving/http_server.py", "checkpoints/card.py", "kernels/cpu.py"):
        both[1].record["code"]["files"][f"src/radquant/{name}"] = "b" * 64
    text = comparison.render(*both)
    assert "code src/radquant/serving/http_server.py" in text  # which differs all the same
    line = explanation(text, "w4a8, likelihood")
    assert "kernels/cpu.py" in line
    assert "serving" not in line
    assert "card" not in line


def test_provenance_names_the_code_that_each_stage_reads(runs):
    stages = finish(runs[0]).record["code"]["stages"]
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    assert set(re.findall(r'code(?:_hash)?\("(\w+)\.py"\)', rules)) <= set(stages)
    assert {causes.stage_of(script)[0] for script in stages} == set(causes.STAGES)
    assert {"quantize_autoawq", "quantize_gptqmodel", "generate_vllm"} <= set(stages)
    assert set().union(*stages.values()) <= set(code_version(CONFIG)["files"])
    assert "src/radquant/kernels/cpp/linear.h" in stages["likelihood"]
    assert "src/radquant/scoring/lexicon_agreement.json" in stages["report"]
    assert "scripts/score.py" in stages["score"]
    assert "scripts/score.py" not in stages["report"]


def test_a_result_changed_after_the_report_is_named(runs):
    both = [finish(run) for run in runs]
    with open(runs[1] / "scores/w4a4.parquet", "ab") as file:
        file.write(b"\0")
    assert sides.changed_files(both[0]) == []
    assert sides.changed_files(both[1]) == ["scores/w4a4.parquet"]


def test_the_script_ends_well_and_prints_no_report_text(runs):
    change_table(
        runs[1] / "likelihood/w4a8.parquet", lambda table: table.assign(nll=table["nll"] + 1)
    )
    for run in runs:
        finish(run)
    words = [sys.executable, str(ROOT / "scripts/compare_runs.py"), *map(str, runs)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr.replace(f"{AT_WORK}\n", "")) == (0, "")
    assert "w4a8, likelihood" in done.stdout
    assert "odule" not in done.stdout
    assert HOSTILE.split()[0] not in done.stdout


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        sides.read_side(tmp_path / "absent")
    with pytest.raises(UserError, match=r"provenance\.json does not exist"):
        sides.read_side(tmp_path)
    write_json(tmp_path / "provenance.json", {"format": 0})
    with pytest.raises(UserError, match="has format 0 and this program reads 2"):
        sides.read_side(tmp_path)


def test_a_missing_prompt_is_named(runs, tmp_path):
    config = copy.deepcopy(CONFIG)
    config["generation"]["prompt"] = str(tmp_path / "gone.txt")
    with pytest.raises(UserError, match=r"gone\.txt, the run's prompt, is no longer there"):
        provenance(collect(runs[0], config))
    assert read_json(runs[0] / "config.json") == CONFIG
