"""GGUF files that are written: against the package gguf, and models against themselves read back.

The reader (`radquant.gguf.reading`, `keys`, `vocabulary`) shares no code with the writer but names.
"""

import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_architectures import VISION
from tiny_models import store, write_samples
from tiny_tokenizers import byte_tokenizer
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.gguf.importance import write_importance
from radquant.gguf.keys import check_keys
from radquant.gguf.reading import hugging_face_values, read_model
from radquant.gguf.tokenizer_keys import PRE_TOKENIZERS, pre_tokenizer, tokenizer_keys
from radquant.gguf.vocabulary import check_vocabulary
from radquant.gguf.writing import float_tensor, rotary_divisors, write_float
from radquant.model_files import StoredTensor, read_header
from radquant.packed.gguf_blocks import LAYOUTS, decode, encode
from radquant.packed.grid import quantize, require_fine_enough
from radquant.quantization.importance import importance_of
from radquant.settings.recipe import Recipe
from radquant.verification.checkpoints import refuse_broken, verify_weights
from radquant.vision.part import vision_hash

WIDE = {"hidden_size": 64, "intermediate_size": 256, "vocab_size": 300}
SHAPE = {
    **WIDE,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 256,
    "eos_token_id": 257,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "Llama": {"head_dim": 32, "tie_word_embeddings": True, "rope_parameters": LLAMA3},
    "Qwen2": {"tie_word_embeddings": False},
    "Qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "Gemma3": {
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "sliding_attention"],
    },
}
IDS = torch.arange(20)[None] * 7 % 256


def tiny(directory: Path, name: str) -> Path:
    """A model of random weights, its norms far from 1, with a tokenizer of bytes; its path."""
    torch.manual_seed(0)
    kind = f"{name}Text" if name == "Gemma3" else name
    config = getattr(transformers, f"{kind}Config")(**{**SHAPE, **MODELS[name]})
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            spread = 0.3 if own.endswith(("norm.weight", "bias")) else 0.15
            parameter.add_(torch.randn_like(parameter) * spread)
    model.save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module", params=MODELS)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp(request.param) / "original", request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("llama") / "original", "Llama")


def bits_of(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(LAYOUTS)), st.integers(0, 2**31), st.sampled_from((1.0, 0.7)))
def test_blocks_stand_for_what_was_evaluated(name: str, seed: int, keep: float) -> None:
    """By the package gguf, to the bit; rows of zeros, of tiny and of one-sided weights too."""
    size = torch.logspace(-9, 3, 8)[torch.randperm(8, generator=torch.manual_seed(seed))]
    weight = torch.randn(8, 512) * size[:, None]
    weight[0], weight[1], weight[2, :40] = 0, weight[1].abs(), weight[2, 0]
    groups = 512 // LAYOUTS[name].group
    stored = quantize(weight, Recipe(method="rtn", type=name), torch.full((8, groups), keep))
    blocks = encode(stored)
    theirs = dequantize(blocks.numpy(), gguf.GGMLQuantizationType[name.upper()])
    assert np.array_equal(bits_of(theirs), bits_of(stored.dequantize().numpy()))
    back = decode(blocks, name)
    assert torch.equal(back.integers, stored.integers)
    assert torch.equal(back.dequantize(), stored.dequantize())
    assert torch.equal(encode(back), blocks)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_any_bytes_are_read_as_the_package_does(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name.upper()]
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, (400, LAYOUTS[name].bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        theirs = dequantize(data, kind)
    finite = np.isfinite(theirs).all(1)
    ours = decode(torch.from_numpy(data), name).dequantize().numpy()
    assert finite.sum() > 300
    assert np.array_equal(bits_of(ours[finite]), bits_of(theirs[finite]))


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q8_0"])
def test_plain_rounding_is_that_of_the_package(name: str) -> None:
    weight = torch.randn(64, 256, generator=torch.manual_seed(2))
    ours = quantize(weight, Recipe(method="rtn", type=name)).dequantize()
    kind = gguf.GGMLQuantizationType[name.upper()]
    theirs = torch.from_numpy(dequantize(gguf.quants.quantize(weight.numpy(), kind), kind))
    assert (ours - weight).norm() <= (theirs - weight).norm() * 1.001


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_weights_too_small_for_float16_are_told(name: str) -> None:
    weight = torch.randn(8, 256, generator=torch.manual_seed(3))
    recipe = Recipe(method="rtn", type=name)
    for size in (1e-3, 1e-5 if LAYOUTS[name].group == 32 and name != "q8_0" else 1e-3):
        require_fine_enough(weight * size, quantize(weight * size, recipe).dequantize(), recipe)
    tiny = weight * 1e-8
    with pytest.raises(UserError, match="are too small"):
        require_fine_enough(tiny, quantize(tiny, recipe).dequantize(), recipe)


def test_a_plain_file_computes_what_the_original_does(original: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_float(original, path, "f32")
    file, config = read_model(path), AutoConfig.from_pretrained(original)
    check_keys(file, config)
    check_vocabulary(file, original)
    stored = load_file(original / "model.safetensors")
    heads = config.num_attention_heads, config.num_key_value_heads
    names = file.hugging_face_names()
    assert set(names.values()) == set(stored)
    for own, name in names.items():
        assert np.allclose(
            hugging_face_values(file, file.tensors[own], *heads), stored[name], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("value", [70000.0, -70000.0, float("nan"), float("-inf")])
def test_values_that_a_plain_file_does_not_hold(tmp_path: Path, value: float) -> None:
    stored = torch.ones(3, 64)
    stored[1, 5] = value
    save_file({"t": stored}, tmp_path / "m.safetensors")
    tensor, config = read_header(tmp_path / "m.safetensors")["t"], transformers.Qwen2Config()
    for kind, held in (("F16", False), ("F32", np.isfinite(value))):
        written = float_tensor(config, "t", tensor, "token_embd.weight", kind)
        if held:
            assert np.array_equal(written.load(), stored.numpy())
            continue
        with pytest.raises(UserError, match=f"t reaches .*, which {kind} does not hold"):
            written.load()


def test_a_table_in_float32_is_not_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MedGemma 4B's takes 2.7 GB."""
    stored = torch.ones(3, 64)
    save_file({"t": stored}, tmp_path / "m.safetensors")
    tensor, config = read_header(tmp_path / "m.safetensors")["t"], transformers.Qwen2Config()
    monkeypatch.setattr(StoredTensor, "load", lambda each: stored)
    written = float_tensor(config, "t", tensor, "token_embd.weight", "F32")
    assert np.shares_memory(written.load(), stored.numpy())


def test_a_checkpoint_is_one_file_that_is_read_back(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In eight bits, where what is left of an error of order or of a norm would stand out."""
    checkpoint = store(original, tmp_path / "c", "--method", "rtn", "--type", "q8_0")
    assert [path.name for path in checkpoint.glob("model.*")] == ["model.gguf"]
    check_keys(read_model(checkpoint / "model.gguf"), AutoConfig.from_pretrained(original))
    with torch.inference_mode():
        expected = load(original).model(IDS).logits
        found = load(checkpoint)
        difference = found.model(IDS).logits - expected
    tied = AutoConfig.from_pretrained(original).tie_word_embeddings
    assert found.layers_quantized == found.values == 14 + (not tied)  # a head of its own is one
    assert difference.norm() < 0.03 * expected.norm()
    monkeypatch.setattr("radquant.verification.outside.CHUNK", 112)  # of 300 rows
    checks = verify_weights(checkpoint, original).checks
    refuse_broken(checks)
    table = load_file(original / "model.safetensors")["model.embed_tokens.weight"]
    errors = (found.model.get_input_embeddings().weight - table).norm(dim=1) / table.norm(dim=1)
    (row,) = (each.measured for each in checks if each.name == "model.embed_tokens: a row")
    assert row == pytest.approx(errors.max().item())


def test_what_sees_images_lies_beside_the_file(tmp_path: Path) -> None:
    """MedGemma's architecture: its language part goes into the file."""
    torch.manual_seed(0)
    text = {**SHAPE, **MODELS["Gemma3"], "vocab_size": 320}
    marks = {"image_token_index": 310, "boi_token_index": 311, "eoi_token_index": 312}
    config = transformers.Gemma3Config(text_config=text, vision_config=VISION, **marks)
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path / "original")
    byte_tokenizer().save_pretrained(tmp_path / "original")
    options = ["--method", "rtn", "--type", "q8_0"]
    checkpoint = store(tmp_path / "original", tmp_path / "c", *options)
    beside = load_file(checkpoint / "model.safetensors")
    assert beside
    assert all("vision" in name or "projector" in name for name in beside)
    with torch.inference_mode():
        expected = load(tmp_path / "original").model(input_ids=IDS).logits
        difference = load(checkpoint).model(input_ids=IDS).logits - expected
        blind = load(checkpoint, vision=False).model
        assert torch.equal(blind(input_ids=IDS).logits - expected, difference)
    assert difference.norm() < 0.03 * expected.norm()
    assert not any("vision" in name for name in blind.state_dict())
    assert vision_hash(checkpoint) == vision_hash(tmp_path / "original")


def test_a_search_on_the_grid_of_blocks(llama: Path, tmp_path: Path) -> None:
    """Rows of 256 are Q4_K, others Q5_0, and each layer's output is nearer than without it."""
    options = ["--calibration", str(write_samples(tmp_path)), "--type", "q4_k", "--method", "gptq"]
    checkpoint = store(llama, tmp_path / "searched", *options)
    file = read_model(checkpoint / "model.gguf")
    types = {name: tensor.type for name, tensor in file.tensors.items()}
    assert types["blk.0.ffn_down.weight"] == "Q4_K"
    assert types["blk.1.attn_q.weight"] == "Q5_0"
    assert types["token_embd.weight"] == "Q8_0"
    assert types["blk.0.attn_norm.weight"] == "F32"
    record = json.loads((checkpoint / "quantization.json").read_text())
    assert record["format"] == "gguf"
    assert record["recipe"]["type"] == "q4_k"
    for layer in record["layers"]:
        assert layer["output_error"] < 0.7 * layer["weight_error"]
    assert load(checkpoint).values == 14


def test_divisors_of_rotary_frequencies_are_those_of_transformers(llama: Path) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = AutoConfig.from_pretrained(llama)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** -(torch.arange(0, 32, 2) / 32)
    divisors = rotary_divisors(config)
    assert divisors is not None
    assert np.allclose(plain.numpy() / divisors, scaled.numpy(), rtol=1e-5)


def test_importance_is_the_mean_square_of_inputs(llama: Path, tmp_path: Path) -> None:
    found = importance_of(llama, write_samples(tmp_path), "cpu")
    model = load(llama).model
    seen: dict[str, torch.Tensor] = {}
    layer = model.model.layers[1]
    layer.mlp.down_proj.register_forward_pre_hook(
        lambda _, args: seen.update(x=seen.get("x", 0) + args[0][0].square().sum(0))
    )
    from radquant.files import read_table

    with torch.inference_mode():
        for ids in read_table(tmp_path / "samples.parquet")["input_ids"]:
            model(torch.tensor(ids)[None])
    name = "blk.1.ffn_down.weight"
    assert np.allclose(found.sums[name], seen["x"].numpy(), rtol=1e-3)
    assert len(found.sums) == 14
    write_importance(found, tmp_path / "matrix.gguf")
    tensors = {each.name: each.data for each in gguf.GGUFReader(tmp_path / "matrix.gguf").tensors}
    assert np.array_equal(tensors[f"{name}.in_sum2"].reshape(-1), found.sums[name])
    assert tensors[f"{name}.counts"].item() == found.tokens
    write_importance(found, tmp_path / "matrix.dat")
    data = (tmp_path / "matrix.dat").read_bytes()
    place = data.index(name.encode()) + len(name)
    calls, count = struct.unpack_from("<ii", data, place)
    values = np.frombuffer(data, "<f4", count, place + 8) / calls
    assert np.allclose(values, found.sums[name] / found.tokens, rtol=1e-6)
    with pytest.raises(UserError, match=r"ends neither in \.gguf nor in \.dat"):
        write_importance(found, tmp_path / "matrix.txt")


def test_pre_tokenizers_go_by_their_regular_expressions() -> None:
    def stored(*steps: object, whole: bool = False) -> dict[str, object]:
        tokenizer = Tokenizer(models.BPE(ignore_merges=whole))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
        return dict(json.loads(tokenizer.to_str()))

    space = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    here = Path("model")
    assert pre_tokenizer(stored(gpt2), here) == "gpt-2"
    assert pre_tokenizer(stored(digits, gpt2), here) == "smollm"
    for ((pattern, *more), whole), name in PRE_TOKENIZERS.items():
        if not more and name != "gpt-2":
            split = pre_tokenizers.Split(Regex(pattern), "isolated")
            assert pre_tokenizer(stored(split, space, whole=whole), here) == name
    other = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    with pytest.raises(UserError, match=r"llama\.cpp has no name"):
        pre_tokenizer(stored(other, space), here)
    with pytest.raises(UserError, match=r"llama\.cpp has no name"):
        pre_tokenizer(stored(pre_tokenizers.ByteLevel(add_prefix_space=True)), here)


def test_a_tokenizer_of_words_is_refused_before_any_work(llama: Path, tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is of type WordLevel"):
        tokenizer_keys(tmp_path, 300)
    with pytest.raises(UserError, match="and the embedding 100 rows"):
        tokenizer_keys(llama, 100)
