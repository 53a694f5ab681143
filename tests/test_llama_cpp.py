"""llama.cpp itself, on tiny models: held against transformers on the same weights."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny_architectures import tiny_model
from tiny_reports import prompt_of, run_script
from tiny_tokenizers import byte_tokenizer
from workflow_helpers import copy_repository, dry_run

from radquant import llama_cpp
from radquant.errors import UserError
from radquant.files import read_json
from radquant.generation import llama_cpp_decoding as decoding
from radquant.generation.engines.kind import Wanted
from radquant.generation.llama_cpp_job import opened_there, score, write, write_row
from radquant.generation.running import Row
from radquant.generation.tasks import Task
from radquant.gguf.writing import write_float
from radquant.model_files import stored_tensors
from radquant.quantization import by_llama_cpp
from radquant.quantization.job import Job
from radquant.settings.llama_cpp import ByLlamaCpp
from radquant.settings.precision import Precision
from radquant.settings.sentences import made

REPOSITORY = Path(__file__).parents[1]
PYTHON = Path(sys.executable)  # the wheel of envs/llama-cpp.txt is among the tests' own packages
LLAMA = {"vocab_size": 300, "max_position_embeddings": 1024, "tie_word_embeddings": True}
LLAMA |= {"attention_bias": False, "mlp_bias": False, "hidden_size": 64, "head_dim": 32}
LLAMA |= {"intermediate_size": 128}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, llama.cpp's Q8_0 of it, and reports."""
    place = tmp_path_factory.mktemp("llama-cpp")
    model = tiny_model("llama", **LLAMA)
    model.save_pretrained(place / "original")
    byte_tokenizer().save_pretrained(place / "original")
    quantized(place, "q8_0")
    for name, count in (("train", 4), ("eval", 7)):
        rows = [
            {
                "id": f"{name}{n}",
                "findings": "the lungs are clear . " * (n % 3 + 1) + chr(97 + n),
                "impression": f"no effusion {n} .",
            }
            for n in range(count)
        ]
        pd.DataFrame(rows).to_csv(place / f"{name}.csv", index=False)
    return place


def quantized(place: Path, name: str, **asked: Any) -> Path:
    job = Job(place / "original", place / name, calibration=asked.pop("calibration", None))
    settings = ByLlamaCpp(tool="llama.cpp", **{"type": name, **asked})
    by_llama_cpp.quantize(job, settings, PYTHON)
    return place / name


def task_of(prompts: list[Any], **changed: Any) -> Task:
    longest = max(len(prompt.ids) + len(prompt.answer_ids) for prompt in prompts) + 8
    values = {"label": "", "batches": [prompts], "shared": [], "longest": longest}
    values |= {"batch_size": 3, "max_new_tokens": 8, "end_ids": (2,)}
    return Task(**values | changed)


def prompts_of(count: int = 5) -> list[Any]:
    """Prompts of different lengths that begin alike, some longer than one pass with the others."""
    drawn = np.random.default_rng(0)
    head = drawn.integers(4, 300, 9).tolist()
    tails = [drawn.integers(4, 300, 3 + 60 * n).tolist() for n in range(count)]
    answers = [drawn.integers(4, 300, 2 + n).tolist() for n in range(count)]
    pairs = zip(tails, answers, strict=True)
    return [prompt_of(head + t, f"r{n}", a) for n, (t, a) in enumerate(pairs)]


# ------------------------------------------------------------------------------------- arithmetic


def test_plain_values_give_the_likelihoods_of_transformers(folder: Path, tmp_path: Path) -> None:
    """Tokens, positions, their order in passes, and the log-softmax; the cache holds float32."""
    write_float(folder / "original", tmp_path / "plain.gguf", "f32")
    model = decoding.load(tmp_path / "plain.gguf", 1, "f32")
    reference = tiny_model("llama", **LLAMA)
    decoding.make_context(model, 1, 400)
    for prompt in prompts_of():
        read = torch.tensor([prompt.ids + prompt.answer_ids])
        scores = reference(input_ids=read).logits[0].double().log_softmax(-1)
        behind = scores[len(prompt.ids) - 1 : -1].gather(-1, read[0, len(prompt.ids) :, None])
        found = decoding.answer_nll(model, prompt.ids, prompt.answer_ids, 0)
        assert found == pytest.approx(-float(behind.sum()), rel=1e-3)
        decoding.forget(model, 0, 0)


@pytest.mark.parametrize("cache", [None, "q8_0"])
def test_a_row_is_written_as_if_it_were_alone(folder: Path, cache: str | None) -> None:
    """In batches, behind tokens that are read once for all, and with other rows that end."""
    rounding = Precision(
        checkpoint="c", engine="llama.cpp", kv_cache=cache and {"type": cache}
    ).kv_cache
    opened = opened_there(Wanted(folder / "q8_0", python=PYTHON, kv_cache=rounding))
    prompts = prompts_of()
    alone = [write(opened, task_of([each], batch_size=1)).work.results[0] for each in prompts]
    done = write(opened, task_of(prompts, shared=prompts[0].ids[:9]))
    same = [one == other for one, other in zip(done.work.results, alone, strict=True)]
    assert sum(same) >= 4  # where two tokens are nearly equally likely, two ways to add may part
    assert done.work.shared_tokens == 9
    assert done.work.pace is not None
    assert done.work.pace.decode_tokens == sum(each.tokens - 1 for each in done.work.results)
    assert done.computed.layers_quantized == 14
    assert done.computed.peak_process_bytes > done.computed.weight_bytes > 0
    assert all(seconds > 0 for seconds in done.work.seconds)
    if cache is None:  # more at once than llama.cpp can hold: no lack of memory
        many = write(opened, task_of([prompts[0]] * 300, batch_size=300, max_new_tokens=1))
        assert (len(many.work.results), many.work.too_large) == (300, [])


def test_a_row_of_the_endpoint_is_written_token_by_token(folder: Path) -> None:
    """As the evaluation writes it, until nobody wants more; then the next can be written."""
    opened = opened_there(Wanted(folder / "q8_0", python=PYTHON))
    for prompt in prompts_of():
        alone = write(opened, task_of([prompt], batch_size=1)).work.results[0]
        row, lengths = Row(prompt.ids, 6), []

        def go_on(row: Row, lengths: list[int] = lengths) -> bool:
            lengths.append(len(row.written))
            return len(row.written) < 3

        write_row(opened, row, go_on)
        assert lengths == list(range(1, len(row.written) + 1))
        assert len(row.written) == 3 or row.written[-1] in opened.end_ids
        text = opened.tokenizer.decode(row.written, skip_special_tokens=True)
        assert alone.text.startswith(text.strip())


def test_what_ends_an_answer(folder: Path) -> None:
    opened = opened_there(Wanted(folder / "q8_0", python=PYTHON))
    prompts = prompts_of()
    free = [each.text for each in write(opened, task_of(prompts, end_ids=None)).work.results]
    tokens = opened.tokenizer(free[-1], add_special_tokens=False).input_ids
    ended = write(opened, task_of(prompts, end_ids=(tokens[2],))).work.results[-1]
    assert (ended.tokens, ended.finish) == (tokens.index(tokens[2]) + 1, "stop")
    mark = free[-1][3]
    stopped = write(opened, task_of(prompts, end_ids=None, stop=(mark,)))
    assert stopped.work.results[-1].text == free[-1][: free[-1].index(mark)]
    assert stopped.work.results[-1].finish == "stop"


# ---------------------------------------------------------------------------------------- stages


def test_stages_write_score_and_time_beside_our_engines(folder: Path, tmp_path: Path) -> None:
    """The same prompts, and likelihoods that differ by llama.cpp's 8-bit activations alone."""
    tables, records = {}, {}
    theirs = ["--engine", "llama.cpp", "--engine-python", str(PYTHON)]
    for engine, more in {"transformers": ["--engine", "transformers"], "llama.cpp": theirs}.items():
        run_script("generate", folder, tmp_path / engine, *more, "--max-new-tokens=6", model="q8_0")
        run_script("likelihood", folder, tmp_path / f"{engine}-l", *more, model="q8_0")
        tables[engine] = pd.read_parquet(tmp_path / f"{engine}.parquet")
        tables[f"{engine}-l"] = pd.read_parquet(tmp_path / f"{engine}-l.parquet")
        records[engine] = read_json(tmp_path / f"{engine}.json")
    same = ["id", "prompt_hash", "prompt_tokens", "truncated_tokens"]
    ours, found = tables["transformers"], tables["llama.cpp"]
    pd.testing.assert_frame_equal(found[same], ours[same])
    ours, found = tables["transformers-l"], tables["llama.cpp-l"]
    assert list(found["tokens"]) == list(ours["tokens"])
    np.testing.assert_allclose(found["nll"], ours["nll"], rtol=0.02)
    assert records["llama.cpp"].keys() == records["transformers"].keys()
    assert records["llama.cpp"]["versions"]["llama.cpp"] == llama_cpp.BUILD
    assert records["llama.cpp"]["kernel"] == "llama.cpp Q8_0"

    command = [sys.executable, str(REPOSITORY / "scripts" / "measure_speed.py")]
    command += [f"--timed=original={folder / 'original'}", f"--timed=q={folder / 'q8_0'}"]
    command += ['--rounding=q={"engine": "llama.cpp"}', f"--engine-python={PYTHON}"]
    command += [f"--train={folder / 'train.csv'}", f"--eval={folder / 'eval.csv'}"]
    command += ["--prompt-text=findings : {findings} impression :", "--device=cpu", "--repeats=3"]
    command += ["--prompts=2", "--tokens=3", "--seconds=0.001", f"--output={tmp_path / 's.json'}"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    timed = read_json(tmp_path / "s.json")["precisions"]
    assert (timed["q"]["engine"], timed["q"]["why_not"]) == ("llama.cpp", None)
    assert timed["q"]["prompt_hashes"] == timed["original"]["prompt_hashes"]
    assert [each["output_tokens"] % 6 for each in timed["q"]["rounds"]] == [0, 0, 0]
    assert all(each["decode_seconds"] > 0 for each in timed["q"]["rounds"])


def test_the_workflow_hands_the_environment_to_what_names_it(tmp_path: Path) -> None:
    run = copy_repository(tmp_path / "run")
    given = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    given["checkpoints"] = {"q": {"tool": "llama.cpp", "type": "q4_k_m", "importance": True}}
    there = {"checkpoint": "q", "engine": "llama.cpp", "kv_cache": {"type": "q8_0"}}
    original = {"checkpoint": "original"}
    given["precisions"] = {"original": original, "here": {"checkpoint": "q"}, "there": there}
    (run / "own.yaml").write_text(yaml.safe_dump(given))
    planned = dry_run(run, "-p", "--configfile", "own.yaml")
    assert planned.code == 0, planned.err
    lines = planned.out.splitlines()
    assert planned.jobs["build_env"] == 1
    python = "results/venvs/llama-cpp/bin/python"
    commands = [line for line in lines if "--precision=" in line]
    assert len(commands) == 4  # three that write, and of `there` one that scores
    for line in commands:
        named = "--precision=there" in line
        assert (f"--engine-python={python}" in line) == ("--engine=llama.cpp" in line) == named
    (quantizing,) = [line for line in lines if "--tool-python" in line]
    assert f"--tool-python {python}" in quantizing
    assert "--importance" in quantizing
    assert "--calibration=results/calibration/samples.parquet" in quantizing
    (timing,) = [line for line in lines if "--timed=" in line]
    assert '"engine": "llama.cpp"' in timing
    assert f"--engine-python={python}" in timing


# -------------------------------------------------------------------------------------- quantizer


def test_the_importance_matrix_is_of_the_layers_inputs(folder: Path, tmp_path: Path) -> None:
    model = tiny_model("llama", **LLAMA)
    sequences = [[5, 6, 7], [8, 9, 10, 11, 12]]
    samples = tmp_path / "samples.parquet"
    pd.DataFrame({"input_ids": sequences}).to_parquet(samples)
    job = Job(folder / "original", tmp_path / "x", calibration=samples)
    by_llama_cpp.write_importance(job, tmp_path / "importance.npz")
    seen = torch.cat([model.model.embed_tokens(torch.tensor(ids)) for ids in sequences])
    wanted = model.model.layers[0].input_layernorm(seen).square().mean(0)
    with np.load(tmp_path / "importance.npz") as found:
        assert len(found) == 14
        for part in "qkv":
            np.testing.assert_allclose(found[f"blk.0.attn_{part}.weight"], wanted, 1e-5)
    (tmp_path / "original").symlink_to(folder / "original")
    plain = quantized(tmp_path, "q4_0")
    weighed = quantized(tmp_path, "w", type="q4_0", importance=True, calibration=samples)
    one, other = (path / "model.gguf" for path in (plain, weighed))
    assert one.stat().st_size == other.stat().st_size
    assert one.read_bytes() != other.read_bytes()
    record = read_json(weighed / "quantization.json")
    assert (record["importance"], record["calibration"]["tokens"]) == (True, 8)
    assert {layer["type"] for layer in record["layers"]} == {"Q4_0"}
    assert record["tool"] == {"name": "llama.cpp", "version": llama_cpp.BUILD}
    assert not stored_tensors(plain)


# ------------------------------------------------------------------------------------- refusals


def test_another_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "llama_context_default_params"
    kind, size, values = llama_cpp.LAYOUTS[name]
    monkeypatch.setitem(llama_cpp.LAYOUTS, name, (kind, size, {**values, "type_v": 8}))
    with pytest.raises(UserError, match=rf"not that of b9371 \({name} has another type_v\)"):
        llama_cpp.open_library()
    monkeypatch.setattr(llama_cpp, "PACKAGE_VERSION", "0.2.2")
    with pytest.raises(UserError, match=r"0\.2\.1 is another release than 0\.2\.2"):
        llama_cpp.open_library()
    monkeypatch.setattr(llama_cpp, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match=r"has no no-such-package.*envs/llama-cpp\.txt"):
        llama_cpp.open_library()


def test_a_process_that_ends_is_told_in_one_sentence(folder: Path) -> None:
    opened = opened_there(Wanted(folder / "q8_0", python=PYTHON))
    os.kill(opened.held.process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"^llama\.cpp .*kill"):
        score(opened, task_of(prompts_of()))


def test_tokens_that_the_model_has_not_are_one_sentence(folder: Path) -> None:
    opened = opened_there(Wanted(folder / "q8_0", python=PYTHON))
    with pytest.raises(UserError, match=r"cannot run this: .*token") as raised:
        write(opened, task_of([prompt_of([5, 6, 7000])]))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "engine llama.cpp needs --engine-python"),
        (["--engine-python", "nowhere"], "--engine-python nowhere does not exist"),
        (["--engine-python", str(PYTHON), "--kv-cache", '{"bits": 8}'], "no KV cache of type int"),
        (["--engine-python", str(PYTHON)], "holds no GGUF file"),
        (["--engine", "auto", "--kv-cache", '{"type": "q8_0"}'], "use engine llama.cpp"),
    ],
)
def test_wrong_options_are_one_sentence(folder, tmp_path, capfd, options, said: str) -> None:
    with pytest.raises(SystemExit):
        run_script("generate", folder, tmp_path / "x", "--engine", "llama.cpp", *options)
    assert said in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kv_cache": {"type": "q8_0"}}, "give engine: llama.cpp"),
        ({"engine": "llama.cpp", "kv_cache": {"bits": 8}}, "has no kv_cache type int"),
        ({"engine": "llama.cpp", "activations": {"bits": 8}}, "takes no activations"),
        ({"engine": "llama.cpp", "kv_cache": {"type": "q8_0", "bits": 4}}, "has bits 8, not 4"),
        ({"engine": "vllm"}, "engine"),
    ],
)
def test_precisions_that_do_not_exist(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        made(Precision, {"checkpoint": "c", **values})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"type": "q9_0"}, "type"),
        ({"type": "q4_k", "method": "awq"}, "method does not go with tool llama.cpp"),
        ({}, "type is missing"),
    ],
)
def test_checkpoints_that_llama_cpp_does_not_make(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        made(ByLlamaCpp, {"tool": "llama.cpp", **values})


def test_a_job_needs_the_environment(folder: Path, tmp_path: Path) -> None:
    asked = ByLlamaCpp(tool="llama.cpp", type="q8_0")
    with pytest.raises(UserError, match="--tool-python nowhere does not exist"):
        by_llama_cpp.quantize(Job(folder / "original", tmp_path / "x"), asked, Path("nowhere"))


def test_a_file_that_llama_cpp_cannot_load(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UserError, match=r"cannot load .*no\.gguf: "):
        decoding.load(tmp_path / "no.gguf", 1, "f16")
