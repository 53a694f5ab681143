"""What AutoAWQ and GPTQModel cannot do is said before they are imported: they are not even here."""

import json
import os
import runpy
import sys

import pytest
from tiny_models import SCRIPTS, tiny_llama
from tiny_tools import LENGTHS, write_samples

from radquant.errors import UserError
from radquant.quantization import by_autoawq, other_packages
from radquant.settings.precision import Activations
from radquant.settings.recipe import Recipe
from radquant.settings.tool_limits import check_tool_recipe


@pytest.mark.parametrize(
    ("lengths", "blocks"), [(LENGTHS, [30] * 4), ([24] * 6, [24] * 6), ([7], [7]), ([1, 2], [2, 2])]
)
def test_autoawq_gets_every_token(lengths, blocks):
    count = iter(range(1000))
    sequences = [[next(count) for _ in range(length)] for length in lengths]
    cut = by_autoawq.cut(sequences)
    assert [len(block) for block in cut] == blocks
    joined = [token for block in cut for token in block]
    assert joined[: sum(lengths)] == list(range(sum(lengths)))
    assert len(joined) - sum(lengths) < max(lengths)
    if len(set(lengths)) == 1:
        assert cut == sequences


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """Run a tool's script, which must end with one sentence; that sentence."""

    def run(tool, model, *options):
        for name in ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.setenv(name, os.environ.get(name, ""))
        samples = write_samples(tmp_path)
        command = [f"quantize_{tool}.py", "--model", str(model), "--calibration", str(samples)]
        command += ["--device", "cpu", "--output", str(tmp_path / "checkpoint"), *options]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPTS / command[0]), run_name="__main__")
        assert ended.value.code == 1
        assert not (tmp_path / "checkpoint").exists()
        lines = capsys.readouterr().err.splitlines()
        assert [line.startswith("error: ") for line in lines].count(True) == 1
        return lines[-1]

    return run


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--bits", "8"], "AutoAWQ cannot do 8 bits; use 4"),
        (["--bits", "2"], "method awq cannot do 2 bits"),  # no method's rule ends in a traceback
        (["--group-size", "-1"], "AutoAWQ cannot do group size -1; use 32, 64 or 128"),
        (["--symmetric"], "AutoAWQ cannot do a grid without zero points; set zero_point to true"),
    ],
)
def test_a_recipe_that_autoawq_has_not(refusal, tmp_path, options, sentence):
    assert sentence in refusal("autoawq", tmp_path, *options)


@pytest.mark.parametrize(
    ("tool", "kind"),
    [("autoawq", "gemma3_text"), ("autoawq", "gemma3"), ("gptqmodel", "phi3")],
)
def test_a_model_type_that_a_tool_cannot_do(refusal, tmp_path, tool, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    sentence = refusal(tool, tmp_path)
    assert f"cannot quantize {tmp_path}, a model of type {kind}; it can llama, mistral" in sentence


def test_layers_that_autoawq_cannot_clip(refusal, tmp_path):
    model = tiny_llama(tmp_path / "model")  # two value heads of 16
    sentence = refusal("autoawq", model, "--group-size", "32")
    assert "self_attn.v_proj, whose 32 outputs are no multiple of 64" in sentence


@pytest.mark.parametrize("tool", ["autoawq", "gptqmodel"])
def test_a_group_size_that_does_not_fit(refusal, tmp_path, tool):
    model = tiny_llama(tmp_path / "model", num_key_value_heads=4)
    assert "group size 128 does not divide the 64 inputs" in refusal(tool, model)


@pytest.mark.parametrize("tool", ["autoawq", "gptqmodel"])
def test_samples_longer_than_the_model_takes(refusal, tmp_path, tool):
    model = tiny_llama(tmp_path / "model", num_key_value_heads=4, max_position_embeddings=16)
    sentence = refusal(tool, model, "--group-size", "32")
    assert "a sample of 30 tokens and the model takes at most 16" in sentence


def test_samples_longer_than_the_window_of_some_layers(tmp_path):
    from transformers import Gemma2Config

    samples = write_samples(tmp_path)
    mixed = ["sliding_attention", "full_attention"]
    config = Gemma2Config(num_hidden_layers=2, sliding_window=16, layer_types=mixed)
    with pytest.raises(UserError, match="gives all layers the window of 16"):
        other_packages.read_sequences(samples, config, "AutoAWQ")
    config.sliding_window = 30
    assert [len(ids) for ids in other_packages.read_sequences(samples, config, "AutoAWQ")] == list(
        LENGTHS
    )


@pytest.mark.parametrize(
    ("tool", "recipe", "form", "sentence"),
    [
        (
            "autoawq",
            Recipe(method="gptq", bits=4, group_size=128, rounding="gptq"),
            None,
            "cannot do method gptq; use awq",
        ),
        (
            "gptqmodel",
            Recipe(method="awq", bits=4, group_size=128),
            None,
            "cannot do method awq; use gptq",
        ),
        (
            "autoawq",
            Recipe(method="awq", bits=4, group_size=128, rounding="gptq"),
            None,
            "cannot do rounding gptq",
        ),
        (
            "autoawq",
            Recipe(method="awq", bits=4, group_size=128, clip=False),
            None,
            "cannot do without clipping",
        ),
        ("autoawq", Recipe(method="awq", bits=4, group_size=128), "gptq", "cannot do format gptq"),
        ("gptqmodel", Recipe(method="gptq", type="fp8"), None, "cannot do type fp8; leave type"),
        (
            "llmcompressor",
            Recipe(method="gptq", type="fp8"),
            None,
            "type fp8 by gptq; use method r",
        ),
        (
            "llmcompressor",
            Recipe(method="rtn", type="mxfp4"),
            None,
            "cannot do type mxfp4; use int",
        ),
        ("llmcompressor", Recipe(method="gptq", bits=3), None, "cannot do 3 bits; use 4 or 8"),
        (
            "llmcompressor",
            Recipe(method="rtn", bits=8, activations=Activations(bits=4)),
            None,
            "such activations; use type int of 8 bits, granularity token, or leave tool out",
        ),
        (
            "llmcompressor",
            Recipe(method="rtn", type="fp8", activations=Activations(bits=8)),
            None,
            "use type fp8 of 8 bits, granularity token, or granularity tensor and range static",
        ),
    ],
)
def test_what_a_configuration_may_not_ask_of_a_tool(tool, recipe, form, sentence):
    with pytest.raises(UserError, match=sentence):
        check_tool_recipe(tool, recipe, form)


def test_what_a_configuration_may_ask_of_a_tool():
    check_tool_recipe("autoawq", Recipe(method="awq", bits=4, group_size=64), "gemm")
    check_tool_recipe(
        "gptqmodel", Recipe(method="gptq", bits=3, group_size=-1, zero_point=False, rounding="gptq")
    )
    by_token = Activations(bits=8)
    check_tool_recipe(
        "llmcompressor", Recipe(method="gptq", zero_point=False, activations=by_token)
    )
    static = Activations(type="fp8", granularity="tensor", range="static")
    check_tool_recipe("llmcompressor", Recipe(method="rtn", type="fp8", activations=static))
