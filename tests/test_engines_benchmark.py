"""What is tested of benchmarks/engines.py: what workers are told, our own worker, tables."""

import json
import math
import subprocess
import sys
from pathlib import Path

import engines
import engines_table as table
import pytest
import torch
from engines_files import ENGINES, WORKERS, last_line
from tiny_models import tiny_llama
from transformers import AutoModelForCausalLM

from radquant.errors import UserError
from radquant.files import write_json
from radquant.kernels import cpu

COUNTING = """
import sys
from protocol import CannotScore, Worker, serve

def score(model, prompts, answers):
    raise CannotScore("it only counts")

def write(model, prompts, new):
    print("this is no answer")
    return [[ids[-1] + n for n in range(1, new + 1)] for ids in prompts][: model["rows"]]

serve(Worker(lambda request: request, write, score, lambda: {"counter": "1"}))
"""


def asked(*requests: dict) -> tuple[subprocess.CompletedProcess[str], list[dict]]:
    done = subprocess.run(
        [sys.executable, "-c", COUNTING],
        input="".join(json.dumps(request) + "\n" for request in requests),
        env={"PYTHONPATH": str(WORKERS)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_worker_answers_line_by_line_and_says_what_it_took():
    done, (loaded, written, scored) = asked(
        {"do": "load", "rows": 2},
        {"do": "write", "prompts": [[1, 2], [3, 4]], "new": 3},
        {"do": "score", "prompts": [[1]], "answers": [[2]]},
    )
    assert done.returncode == 0
    assert loaded["versions"] == {"counter": "1"}
    assert written.keys() == {"cpu_seconds", "seconds", "peak_bytes"}
    assert 1e6 < written["peak_bytes"] < 1e9
    assert scored["cannot"] == "it only counts"
    assert "this is no answer" in done.stderr


def test_a_worker_that_writes_too_little_ends_with_a_sentence():
    done, answers = asked(
        {"do": "load", "rows": 1}, {"do": "write", "prompts": [[1], [2]], "new": 2}
    )
    assert (done.returncode, len(answers)) == (1, 1)
    assert done.stderr.splitlines()[-1] == "2 answers of 2 tokens were asked for: [2]"


def test_decoding_costs_what_more_tokens_cost_more():
    first, whole = {"cpu_seconds": 1.0, "seconds": 2.0}, {"cpu_seconds": 3.0, "seconds": 7.0}
    assert table.cost(20, whole, first) == {"tokens": 20, "cpu_seconds": 2.0, "seconds": 5.0}
    assert table.cost(20, whole) == {"tokens": 20, **whole}


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary():
    tokens = [3, 5, 8]
    nats = [count * math.log(49152) for count in tokens]
    assert table.perplexity(nats, sum(tokens)) == pytest.approx(49152)


SAID = {
    "machine": "a processor, 2 cores",
    "settings": {"threads": [1, 2], "rounds": 3, "batch_sizes": [1], "prompt_tokens": [1024]},
}


def found() -> dict:
    rounds = [
        {
            "decode-1": {"tokens": 30, "cpu_seconds": seconds, "seconds": 2 * seconds},
            "prompt-1024": {"tokens": 1024, "cpu_seconds": 2.0, "seconds": 4.0},
        }
        for seconds in (1.0, 3.0, 2.0)
    ]
    runs = {"rounds": rounds, "peak_bytes": 420_000_000}
    return {
        **SAID,
        "engines": {
            "one": {
                **{"label": "one", "weights": "bf16", "perplexity": 12.345},
                **{"threads": {"1": runs, "2": runs}, "versions": {"one": "1.0"}},
            },
            "two": {
                **{"label": "two", "weights": "int4", "no_perplexity": "it tells none"},
                **{"threads": {"1": runs}, "versions": {"two": "2.0"}},
            },
            "three": {"label": "three", "weights": "int8", "not_run": "no kernel here"},
        },
    }


def test_tables_have_a_row_for_every_engine_whatever_became_of_it():
    printed = table.tables(found())
    cells = [line.strip("| ").split(" | ") for line in printed.splitlines()]
    rows = [row for row in cells if row[0] in ("one", "two", "three")]
    assert [row[0] for row in rows] == ["one", "two", "three"] * 4
    decode, prompt = "15 (10–30)", "512 (512–512)"
    assert rows[0][2:] == [decode, prompt, "0.42 GB", "12.35"]
    assert rows[1][2:] == [decode, prompt, "0.42 GB", "–"]
    assert rows[2][2].startswith("not run: no kernel here")
    assert rows[3][2:] == ["8 (5–15)", "256 (256–256)", "4000 (4000–4000) ms"]
    assert rows[7][2].startswith("not run: not measured with so many threads")
    assert "no perplexity, because it tells none." in printed
    assert printed.endswith("Versions: one 1.0, two 2.0")


def test_all_rows_of_a_table_are_of_one_width():
    for block in table.tables(found()).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_figures_of_other_settings_are_not_mixed(tmp_path: Path):
    file = tmp_path / "engines.json"
    assert engines.earlier(file, SAID) == {}
    write_json(file, found())
    assert engines.earlier(file, SAID).keys() == {"one", "two", "three"}
    with pytest.raises(UserError, match="other settings"):
        engines.earlier(file, {**SAID, "machine": "another"})


def test_tables_are_printed_again_in_the_order_of_the_engines(tmp_path: Path):
    file = tmp_path / "engines.json"
    with pytest.raises(UserError, match="measure first"):
        engines.printed(file)
    one = found()["engines"]["one"]
    names = ["vllm-bf16", "onnx-int4", "ours-w4a8"]
    write_json(file, {**SAID, "engines": {name: {**one, "label": name} for name in names}})
    rows = [line for line in engines.printed(file).splitlines() if " | bf16 | " in line]
    assert [row.split()[1] for row in rows[:3]] == ["ours-w4a8", "onnx-int4", "vllm-bf16"]


def test_a_reason_is_the_last_that_a_program_said(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("loading\nerror: it needs AMX\n\n")
    assert last_line(log) == "it needs AMX"


def test_every_engine_has_its_worker_and_its_environment():
    for engine in ENGINES.values():
        assert (WORKERS / f"{engine.worker}.py").is_file()
        if engine.environment is not None:
            places = (WORKERS, WORKERS.parents[1] / "envs")
            assert any((place / f"{engine.environment}.txt").is_file() for place in places)


@pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
def test_our_own_worker_writes_what_transformers_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(WORKERS))
    import with_radquant as worker

    path = tiny_llama(tmp_path / "llama")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    prompts = [[5, 9, 11, 3], [7, 2, 8, 6]]
    expected = model.generate(
        torch.tensor(prompts), max_new_tokens=6, min_new_tokens=6, do_sample=False
    )
    monkeypatch.setattr(torch, "bfloat16", torch.float32)  # whose ties are none
    lean = worker.load_model({"model": str(path), "threads": 1})
    worker.make_room(lean, prompts, 6)
    assert worker.write(lean, prompts, 6) == expected[:, 4:].tolist()


def test_tokens_that_took_no_longer_than_their_first_have_no_speed() -> None:
    spent = ({"cpu_seconds": 2.0, "seconds": 2.0}, {"cpu_seconds": 2.5, "seconds": 2.0})
    rounds = [{"decode-8": table.cost(16, spent[0], one)} for one in (spent[1], {**spent[0]})]
    assert table.with_range(table.rates(rounds, "decode-8", table.CPU)) == "too short"
    whole = [{"decode-8": table.cost(16, spent[0])}]
    assert table.with_range(table.rates(whole, "decode-8", table.CPU)) == "8 (8–8)"
