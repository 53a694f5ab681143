"""GGUF directories in the engines here: the same model as the original with the stored values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file
from tiny_architectures import logits_of
from tiny_gguf import ARCHITECTURES, gguf_directory, random_blocks, write_gguf
from tiny_tokenizers import byte_tokenizer

from radquant.checkpoints.fitting import open_config
from radquant.checkpoints.gguf_model import beside_language
from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.gguf.keys import check_keys
from radquant.gguf.reading import GGUFModel, GGUFTensor, hugging_face_values, read_model
from radquant.gguf.vocabulary import check_vocabulary
from radquant.model_files import stored_tensors, weight_files


def give_images(folder: Path) -> None:
    """Put what a model has beside its language part into its checkpoint."""
    beside = beside_language(stored_tensors(folder / "original"))
    tensors = {name: tensor.load() for name, tensor in beside.items()}
    save_file(tensors, folder / "checkpoint" / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_float32_files_compute_what_the_original_does(tmp_path: Path, kind: str) -> None:
    """Rows of q and k, norms with their 1, biases, and every name."""
    model, _ = gguf_directory(tmp_path, kind)
    if kind == "gemma3":
        with pytest.raises(UserError, match=r"has no weights for model\.(vision|multi)"):
            load(tmp_path / "checkpoint")
        give_images(tmp_path)
    loaded = load(tmp_path / "checkpoint")
    wanted, found = logits_of(model), logits_of(loaded.model)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()
    check_vocabulary(read_model(tmp_path / "checkpoint" / "model.gguf"), tmp_path / "original")


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text"])
def test_packed_layers_have_the_values_of_the_file(tmp_path: Path, kind: str) -> None:
    model, values = gguf_directory(tmp_path, kind, Type.Q4_0)
    loaded = load(tmp_path / "checkpoint")
    assert loaded.layers_quantized == len(values) == 14
    for name, value in values.items():
        layer = loaded.model.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(layer.dequantize().T, value)
    model.load_state_dict(values, strict=False)
    torch.testing.assert_close(logits_of(loaded.model), logits_of(model), rtol=1e-4, atol=1e-4)
    assert weight_files(tmp_path / "checkpoint") == [tmp_path / "checkpoint" / "model.gguf"]


@pytest.mark.parametrize("kind", [Type.Q4_1, Type.Q6_K, Type.IQ4_XS, Type.Q2_K])
def test_rows_are_taken_apart_each_by_itself(tmp_path: Path, kind: Type) -> None:
    """More rows than are taken at a time, and the file's own order of rows."""
    raw = random_blocks(kind, 5000 * 2)
    path = tmp_path / "blocks"
    path.write_bytes(bytes(64) + raw.tobytes())
    columns = 2 * (32 if kind == Type.Q4_1 else 256)
    tensor = GGUFTensor("blk.0.ffn_up.weight", (5000, columns), kind.name, 64)
    from gguf.quants import dequantize

    file = GGUFModel(path, "llama", {}, {})
    with np.errstate(all="ignore"):
        wanted = dequantize(raw.reshape(5000, -1), kind)
    if not np.isfinite(wanted).all():  # random scales are
        with pytest.raises(UserError, match=r"blk\.0\.ffn_up\.weight holds values that are no"):
            hugging_face_values(file, tensor, 1, 1)
    raw[:, :] = 1
    path.write_bytes(bytes(64) + raw.tobytes())
    found = hugging_face_values(file, tensor, 1, 1)
    assert np.array_equal(found, dequantize(raw.reshape(5000, -1), kind))


OTHER_KEYS = [
    ({"rope__freq_base": 5e5}, "says llama.rope.freq_base: 500000, and by the original's .* 10000"),
    ({"attention__layer_norm_rms_epsilon": 1e-3}, "epsilon: 0.00100000005, .* 1e-06"),
    ({"attention__head_count": 2}, "says llama.attention.head_count: 2, .* it is 4"),
    ({"attention__head_count_kv": [2, 4]}, r"head_count_kv: \[2, 4\], .* it is 2"),
    ({"attention__key_length": 32, "rope__dimension_count": 32}, "key_length: 32, .* it is 16"),
    ({"rope__scaling__type": "linear", "rope__scaling__factor": 8.0}, "type: linear, by 8, "),
    ({"rope__scale_linear": 4.0}, "rope.scaling.type: linear, by 4, .* it is default"),
    ({"final_logit_softcapping": 30.0}, "final_logit_softcapping: 30, .* it is 0"),
    ({"expert_count": 8}, "expert_count: 8, .* it is 0"),
    ({"logit_scale": 0.5}, "has a key llama.logit_scale: 0.5, which is not applied here"),
    ({"feed_forward_length": 128}, "feed_forward_length: 128, .* it is 160"),
    ({"attention__causal": False}, "attention.causal: False, .* it is True"),
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("llama")
    return folder, gguf_directory(folder, "llama", Type.Q8_0)[0]


@pytest.mark.parametrize(("changed", "said"), OTHER_KEYS, ids=lambda each: str(each)[:40])
def test_a_key_that_says_another_computation_is_refused(
    llama: tuple[Path, Any], tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    folder, model = llama
    write_gguf(tmp_path / "other.gguf", model, "llama", **changed)
    with pytest.raises(UserError, match=said):
        check_keys(read_model(tmp_path / "other.gguf"), open_config(folder / "original"))


def test_keys_that_change_nothing_are_taken(llama: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = llama
    changed = {
        **{"rope__scaling__type": "none", "rope__scaling__factor": 1.0, "attention__scale": 0.0},
        **{"attention__head_count_kv": [2, 2], "rope__scaling__finetuned": False},
        **{"general__name": "x", "rope__scaling__original_context_length": 64},
    }
    write_gguf(tmp_path / "other.gguf", model, "llama", **changed)
    check_keys(read_model(tmp_path / "other.gguf"), open_config(folder / "original"))


def test_gemma_s_windows_are_compared(tmp_path: Path) -> None:
    model, _ = gguf_directory(tmp_path, "gemma3_text")
    config = open_config(tmp_path / "original")
    for changed, said in (
        ({"attention__sliding_window": 16}, "sliding_window: 16, .* it is 8"),
        ({"attention__sliding_window_pattern": None}, r"\[True, True\], .* \[True, False\]"),
        ({"rope__freq_base_swa": 2e4}, "freq_base_swa: 20000, .* it is 10000"),
        ({"attention__sliding_window": None}, "sliding_window: 0, .* it is 8"),
    ):
        write_gguf(tmp_path / "other.gguf", model, "gemma3_text", **changed)
        with pytest.raises(UserError, match=said):
            check_keys(read_model(tmp_path / "other.gguf"), config)
    config.query_pre_attn_scalar = 64
    file = read_model(tmp_path / "checkpoint" / "model.gguf")
    with pytest.raises(UserError, match=r"_scalar 64, and llama\.cpp computes with 32"):
        check_keys(file, config)


def test_llama_3_s_frequencies_are_compared(tmp_path: Path) -> None:
    """config.json has four numbers for them, and a file the table that follows."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    gguf_directory(tmp_path, "llama")
    config = open_config(tmp_path / "original")
    file = read_model(tmp_path / "checkpoint" / "model.gguf")
    numbers = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config.rope_parameters = {
        **{"rope_type": "llama3", "rope_theta": 10000.0, **numbers},
        "original_max_position_embeddings": 64,
    }
    with pytest.raises(UserError, match=r"has no tensor rope_freqs\.weight"):
        check_keys(file, config)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 10000 ** (torch.arange(0, 16, 2) / 16)
    table = (plain / scaled).float().numpy()
    assert not np.allclose(table, 1)
    (tmp_path / "table").write_bytes(table.tobytes() + (2 * table).tobytes())
    for begin, fits in ((0, True), (32, False)):
        own = GGUFTensor("rope_freqs.weight", (8,), "F32", begin)
        with_table = GGUFModel(tmp_path / "table", "llama", file.keys, {own.name: own})
        if fits:
            check_keys(with_table, config)
        else:
            with pytest.raises(UserError, match="other divisors of rotary frequencies"):
                check_keys(with_table, config)
    config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    with pytest.raises(UserError, match="says no rope_type llama3"):
        check_keys(with_table, config)


def test_another_architecture_part_or_type_is_refused(
    llama: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, model = llama
    whole = (folder / "checkpoint" / "model.gguf").read_bytes()
    path = tmp_path / "other.gguf"
    path.write_bytes(whole.replace(b"llama", b"phi-3"))
    with pytest.raises(UserError, match="has the architecture phi-3, which is not known here"):
        read_model(path)
    write_gguf(path, model, "llama", split__count=3)
    with pytest.raises(UserError, match="one of 3 parts; join them with llama-gguf-split"):
        read_model(path)
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="ends behind the file's end"):
        read_model(path)
    path.write_bytes(whole.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_ab.weight"))
    with pytest.raises(UserError, match=r"has a tensor blk\.1\.ffn_ab\.weight, which is not"):
        read_model(path).hugging_face_names()
    gguf_directory(tmp_path, "qwen2")
    file, config = (
        read_model(folder / "checkpoint" / "model.gguf"),
        open_config(tmp_path / "original"),
    )
    with pytest.raises(UserError, match="the original is of type qwen2, whose files say qwen2"):
        check_keys(file, config)


def test_another_tokenizer_is_refused_with_how_many_tokens_differ(
    llama: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, model = llama
    path = tmp_path / "other.gguf"
    original = folder / "original"
    write_gguf(path, model, "llama", tokenizer=byte_tokenizer(("<s>", "</s>", "<more>")))
    with pytest.raises(UserError, match=r"(\d+) of 300 tokens .* \(token 2 is '<more>' there"):
        check_vocabulary(read_model(path), original)
    whole = (folder / "checkpoint" / "model.gguf").read_bytes()
    swapped = whole.replace(b"a r", b"r a")
    assert swapped != whole
    path.write_bytes(swapped)
    with pytest.raises(UserError, match=r"1 of the \d+ merges of .* differ"):
        check_vocabulary(read_model(path), original)
    for changed, said in (
        ({"tokenizer__ggml__bos_token_id": 7}, "says bos_token_id 7, and the original's tokenizer"),
        ({"tokenizer__ggml__eos_token_id": 7}, "says eos_token_id 7, and the original ends with 1"),
        ({"tokenizer__ggml__add_bos_token": True}, r"adds a beginning \(BOS\) to a text, and"),
        ({"tokenizer__ggml__model": "bert"}, "a tokenizer of the kind 'bert'"),
    ):
        write_gguf(path, model, "llama", **changed)
        with pytest.raises(UserError, match=said):
            check_vocabulary(read_model(path), original)
