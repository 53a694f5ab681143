"""The model card: valid front matter, true statements, and nothing of texts or paths."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from radquant.checkpoints.card import model_card, original_licence
from radquant.packed.formats import stored_format
from radquant.runtime.runtime_file import announce
from radquant.settings.precision import Activations
from radquant.settings.recipe import Recipe, recipe_values

AWQ = Recipe(method="awq", bits=4, group_size=128)
SECRET = "No acute cardiopulmonary process."


def source(directory: Path, readme: str = "", model_type: str = "llama", **origin: str) -> Path:
    """The directory of an original model with a configuration, and a card or a record of origin."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    if readme:
        (directory / "README.md").write_text(readme)
    if origin:
        (directory / "source.json").write_text(json.dumps(origin))
    return directory


def card_of(directory: Path, recipe: Recipe = AWQ, form: str = "gemm", **record: Any) -> str:
    quantization = stored_format(form).config(recipe, ["lm_head"])
    return model_card(directory, quantization, {"recipe": recipe_values(recipe), **record})


def front_of(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    read: dict[str, Any] = yaml.safe_load(front)
    return read


def test_front_matter_names_the_original_and_its_licence(tmp_path: Path) -> None:
    readme = "---\nlicense: other\nlicense_name: gemma\nlicense_link: https://a.b/c\n---\n# Text\n"
    front = front_of(card_of(source(tmp_path / "m", readme, kind="hub", id="org/model-7b")))
    assert front["base_model"] == "org/model-7b"
    assert front["base_model_relation"] == "quantized"
    assert front["license"] == "other"
    assert front["license_name"] == "gemma"
    assert front["license_link"] == "https://a.b/c"
    assert front["tags"] == ["radquant", "awq", "4-bit"]


@pytest.mark.parametrize(
    "readme", ["", "no front matter", "---\nlicense: [\n---\n", "---\n- a\n---\n"]
)
def test_no_licence_is_said_not_guessed(tmp_path: Path, readme: str) -> None:
    card = card_of(source(tmp_path / "m", readme))
    assert "license" not in front_of(card)
    assert "name no licence" in card


def test_a_licence_file_is_named(tmp_path: Path) -> None:
    directory = source(tmp_path / "m")
    (directory / "LICENSE.txt").write_text("terms")
    assert "`LICENSE.txt` lies beside this file" in card_of(directory)


def test_a_wheel_is_named_as_the_origin(tmp_path: Path) -> None:
    record = {"kind": "wheel", "requirement": "llm-x==0.1", "file": "llm_x/small.gguf"}
    card = card_of(source(tmp_path / "m", **record))
    assert "small.gguf from the Python package llm-x==0.1" in card
    assert "base_model" not in front_of(card)


def test_no_path_and_no_text_gets_in(tmp_path: Path) -> None:
    directory = source(tmp_path / "m", kind="path", path=str(tmp_path / "somebody" / "my-model"))
    calibration = {
        "samples": 128,
        "tokens": 65536,
        "prompt_hash": "ab12",
        "text": SECRET,
        "source": {"kind": "table", "path": str(tmp_path), "sha256": "cd34", "column": SECRET},
    }
    card = card_of(directory, calibration=calibration)
    assert "my-model" in card
    assert str(tmp_path) not in card
    assert SECRET not in card
    for line in ("samples: 128", "tokens: 65,536", "prompt_hash: `ab12`", "sha256: `cd34`"):
        assert f"- {line}\n" in card


def test_measured_quality(tmp_path: Path) -> None:
    layers = [
        {"name": "layers.0.q_proj", "weight_error": 0.1, "output_error": 0.05},
        {"name": "layers.1.q_proj", "weight_error": 0.2, "output_error": 0.15},
    ]
    directory = source(tmp_path / "m")
    card = card_of(directory, layers=layers)
    assert "output on the calibration data: mean 0.1, largest 0.15 (`layers.1.q_proj`)" in card
    assert "on held-out reports: see `report.md`" in card


@pytest.mark.parametrize(
    ("recipe", "record", "said"),
    [
        (AWQ, {}, "- range: clipped by search"),
        (Recipe(method="gptq", bits=4, group_size=128), {}, "- range: clipped by search"),
        (Recipe(method="gptq", bits=4, group_size=128, clip=False), {}, "- range: not clipped"),
        (Recipe(method="gptq", bits=4, group_size=128, desc_act=True), {}, "- range: not clipped"),
        (
            Recipe(method="gptq", bits=4, group_size=128),
            {"tool": {"name": "gptqmodel", "version": "7"}},
            None,
        ),
        (Recipe(method="rtn", bits=4, group_size=128), {}, None),
    ],
)
def test_what_became_of_the_ranges(
    tmp_path: Path, recipe: Recipe, record: dict[str, Any], said: str | None
) -> None:
    form = "gptq" if recipe.method == "gptq" else "gemm"
    card = card_of(source(tmp_path / "m"), recipe, form, **record)
    assert "- range:" not in card if said is None else f"{said}\n" in card


def test_rounding_to_nearest_saw_no_data(tmp_path: Path) -> None:
    assert "looks at the weights alone" in card_of(
        source(tmp_path / "m"), Recipe(method="rtn", bits=4, group_size=32)
    )


@pytest.mark.parametrize(
    ("recipe", "form", "said"),
    [
        (
            Recipe(method="awq", bits=8, group_size=128),
            "gemm",
            "not with gptqmodel 7.2, whose AWQ layers hold 4 bits",
        ),
        (
            Recipe(method="awq", bits=8, group_size=128),
            "gemm",
            "not with vLLM 0.32, which reads AWQ's format in 4 bits",
        ),
        (
            Recipe(method="gptq", bits=4, group_size=128),
            "gptq",
            "not with vLLM 0.32, which reads the GPTQ format on a sym",
        ),
        (
            Recipe(method="gptq", bits=4, group_size=128, zero_point=False, desc_act=True),
            "gptq",
            "groups in order of activation",
        ),
        (Recipe(method="gptq", bits=3, group_size=128, zero_point=False), "gptq", "have no 3 bits"),
        (Recipe(method="rtn", bits=8, group_size=128), "compressed-tensors", "Hopper"),
        (
            Recipe(method="rtn", bits=4, group_size=128, progressive=True),
            "qoq",
            "Neither transformers nor vLLM does",
        ),
    ],
)
def test_what_does_not_load_is_said(tmp_path: Path, recipe: Recipe, form: str, said: str) -> None:
    assert said in card_of(source(tmp_path / "m"), recipe, form)


@pytest.mark.parametrize(
    ("recipe", "form"),
    [
        (AWQ, "gemm"),
        (Recipe(method="gptq", bits=4, group_size=128, zero_point=False), "gptq"),
        (Recipe(method="gptq", bits=8, group_size=-1, zero_point=False, desc_act=True), "gptq"),
        (Recipe(method="gptq", bits=4, group_size=128), "compressed-tensors"),
    ],
)
def test_what_loads_is_shown(tmp_path: Path, recipe: Recipe, form: str) -> None:
    card = card_of(source(tmp_path / "m"), recipe, form)
    assert 'LLM("DIRECTORY", dtype="float16")' in card
    assert "AutoModelForCausalLM.from_pretrained" in card


def test_gemma_3_is_not_loaded_in_float16(tmp_path: Path) -> None:
    card = card_of(source(tmp_path / "m", model_type="gemma3"))
    assert 'dtype="float16"' not in card
    assert 'dtype="bfloat16"' in card
    assert "overflow in float16" in card


def lines_of(card: str) -> list[str]:
    return [line.removeprefix("- ") for line in card.splitlines() if line.startswith("- ")]


def test_a_plain_checkpoint_says_nothing_of_run_time(tmp_path: Path) -> None:
    card = card_of(source(tmp_path / "m"))
    assert not any(
        line.startswith(("before:", "prefix:", "weights are fitted", "ranges of"))
        for line in lines_of(card)
    )
    assert "radquant.runtime" not in card


@pytest.mark.parametrize(
    ("recipe", "record", "said"),
    [
        (
            Recipe(method="gptq", bits=4, group_size=128, transform="smooth"),
            {},
            "before: outlying input channels moved into the weights "
            "(SmoothQuant, arXiv:2211.10438)",
        ),
        (
            Recipe(method="awq", bits=4, group_size=128, smooth_attention=True),
            {},
            "before: outlying key channels moved to the queries (QoQ, arXiv:2405.04532)",
        ),
        (
            Recipe(method="awq", bits=4, group_size=128, prefix="auto"),
            {"prefix": [7, 1]},
            "prefix: keys and values of 2 tokens before every text (PrefixQuant, "
            "arXiv:2410.05265), in `radquant.runtime`",
        ),
        (
            Recipe(method="awq", bits=4, group_size=128, prefix="auto"),
            {"prefix": [1]},
            "prefix: keys and values of 1 token before every text (PrefixQuant, "
            "arXiv:2410.05265), in `radquant.runtime`",
        ),
        (
            Recipe(method="awq", bits=4, group_size=128, activations=Activations(bits=8)),
            {},
            "weights are fitted to activations rounded to 8 bits, one symmetric dynamic range a "
            "token",
        ),
        (
            Recipe(
                method="gptq",
                bits=4,
                group_size=128,
                activations=Activations(
                    bits=4, granularity="group", group_size=64, symmetric=False, range="static"
                ),
            ),
            {},
            "ranges of activations rounded to 4 bits, one asymmetric static range a group of 64 "
            "channels: in `radquant.runtime`",
        ),
        (
            Recipe(
                method="rtn",
                bits=8,
                group_size=128,
                activations=Activations(bits=8, granularity="tensor", range="static"),
            ),
            {},
            "ranges of activations rounded to 8 bits, one symmetric static range a linear layer: "
            "in `radquant.runtime`",
        ),
    ],
)
def test_what_was_done_for_run_time(
    tmp_path: Path, recipe: Recipe, record: dict[str, Any], said: str
) -> None:
    form = "gptq" if recipe.method == "gptq" else "gemm"
    card = card_of(source(tmp_path / "m"), recipe, form, **record)
    assert said in lines_of(card)
    fitted = any(line.startswith("weights are fitted") for line in lines_of(card))
    assert fitted == (recipe.method != "rtn" and recipe.activations is not None)
    others = "Of what lies in `radquant.runtime` they know nothing" in card
    assert others == ("radquant.runtime" in said)


def test_no_token_found_is_no_prefix(tmp_path: Path) -> None:
    card = card_of(
        source(tmp_path / "m"),
        Recipe(method="awq", bits=4, group_size=128, prefix="auto"),
        prefix=[],
    )
    assert "prefix:" not in card


def test_only_radquant_loads_a_rotated_model(tmp_path: Path) -> None:
    recipe = Recipe(method="awq", bits=4, group_size=128, transform="hadamard")
    weights = stored_format("gemm").config(recipe, ["lm_head"])
    record = {"recipe": recipe_values(recipe), "prefix": [1]}
    quantization = announce(weights, ("mlp.down_proj",))
    card = model_card(source(tmp_path / "m"), quantization, record)
    assert "before: rotated by Hadamard matrices (QuaRot, arXiv:2404.00456)" in lines_of(card)
    assert "transformers, vLLM: not at all." in card
    assert "`radquant.checkpoints.loading.load(directory)`" in card
    assert "```" not in card
    assert "library_name" not in front_of(card)
    assert "they know nothing" not in card


HEADS = {
    "not UTF-8": b"---\nlicense: mit\n---\nCaf\xe9",
    "bom": b"\xef\xbb\xbf---\nlicense: mit\n---\n",
    "crlf": b"---\r\nlicense: mit\r\n---\r\n",
    "rule below": b"---\nlicense: mit\n---\n\n---\n",
}
NO_HEADS = {
    "no date": b"---\nlicense: mit\ndate: 2026-13-45\n---\n",
    "nested": b"---\nlicense: " + b"[" * 1000 + b"\n---\n",
    "laughs": b"---\na0: &a0 [x]\n"
    + b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 9)
    )
    + b"license: *a8\n---\n",
    "blank lines": b"---" + b"\n" * 300_000 + b"x",
    "open": b"---\nlicense: mit\n",
    "object": b"---\nlicense: !!python/name:os.system\n---\n",
    "list": b"---\n- license\n---\n",
    "empty": b"",
}


@pytest.mark.parametrize("head", [*HEADS, *NO_HEADS])
def test_an_originals_card_cannot_stop_ours(tmp_path: Path, head: str) -> None:
    """Ours is written at the end of hours of work."""
    (tmp_path / "README.md").write_bytes({**HEADS, **NO_HEADS}[head])
    expected = {"license": "mit"} if head in HEADS else {}
    assert original_licence(tmp_path) == expected
