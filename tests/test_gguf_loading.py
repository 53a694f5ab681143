"""GGUF directories in the engines here: the same model as the original with the stored values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file
from tiny_architectures import logits_of
from tiny_gguf import ARCHITECTURES, gguf_directory, write_gguf
from tiny_tokenizers import byte_tokenizer

from radquant.checkpoints.fitting import open_config
from radquant.checkpoints.gguf_model import beside_language, values_in
from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.files import read_json, write_json
from radquant.generation.lean_decoder import take_over
from radquant.gguf.keys import check_keys
from radquant.gguf.reading import GGUFModel, GGUFTensor, hugging_face_values, read_model
from radquant.gguf.vocabulary import check_scores, check_vocabulary
from radquant.kernels import cpu
from radquant.model_files import StoredTensor, stored_tensors, weight_files
from radquant.verification.checkpoints import refuse_broken, verify_weights


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


def test_in_bfloat16_values_are_rounded_once_and_take_two_bytes(tmp_path: Path) -> None:
    """As each product would round exact values again, so outputs are equal to the bit."""
    model, values = gguf_directory(tmp_path, "llama", Type.Q4_0)
    loaded = load(tmp_path / "checkpoint", dtype=torch.bfloat16)
    for name, value in values.items():
        layer = loaded.model.get_submodule(name.removesuffix(".weight"))
        assert layer.weight.dtype == torch.bfloat16
        assert torch.equal(layer.weight, value.bfloat16())
    model.load_state_dict(values, strict=False)
    model.save_pretrained(tmp_path / "original")
    plain = load(tmp_path / "original", dtype=torch.bfloat16).model
    assert torch.equal(logits_of(loaded.model), logits_of(plain))
    assert loaded.weight_bytes < 2.1 * sum(each.numel() for each in model.parameters())
    if cpu.unavailable() is None:
        take_over(loaded, None)
        assert loaded.weight_bytes < 2.1 * sum(each.numel() for each in model.parameters())


def test_few_rows_are_in_float32_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file of 4 billion weights all of them would take 16 GB, and one table 2.7."""
    gguf_directory(tmp_path, "gemma3_text", Type.Q4_0)
    read: list[tuple[int, ...]] = []

    def watched(*asked: Any) -> np.ndarray:
        values = hugging_face_values(*asked)
        read.append(values.shape)
        return values

    whole = load(tmp_path / "checkpoint").model.state_dict()
    monkeypatch.setattr("radquant.gguf.reading.ROWS", 48)
    for user in ("checkpoints.gguf_model", "verification.reading"):
        monkeypatch.setattr(f"radquant.{user}.hugging_face_values", watched)
    parts = load(tmp_path / "checkpoint").model.state_dict()
    assert all(torch.equal(parts[name], each) for name, each in whole.items())
    assert max(shape[0] for shape in read if len(shape) > 1) == 48
    read.clear()
    monkeypatch.setattr("radquant.verification.outside.CHUNK", 80)
    monkeypatch.setattr(StoredTensor, "load", lambda each: small(load_tensor(each)))
    found = verify_weights(tmp_path / "checkpoint", tmp_path / "original")
    refuse_broken(found.checks)
    table = [check for check in found.checks if "embed_tokens" in check.name]
    assert [check.measured for check in table] == [0.0]
    assert max(shape[0] for shape in read if len(shape) > 1) < 300


load_tensor = StoredTensor.load


def small(tensor: torch.Tensor) -> torch.Tensor:
    assert len(tensor) < 300, "the whole table is read"
    return tensor


def test_values_too_large_for_float16_are_told(tmp_path: Path) -> None:
    block = np.array([60000], "<f2").tobytes() + bytes([2] * 32)
    (tmp_path / "blocks").write_bytes(block)
    file = GGUFModel(tmp_path / "blocks", "llama", {}, {})
    tensor = GGUFTensor("output.weight", (1, 32), "Q8_0", 0)
    exact = float(np.float16(60000)) * 2
    assert float(values_in(file, tensor, (1, 1), torch.float32).max()) == exact
    with pytest.raises(UserError, match=r"output\.weight holds 1.2e\+05, which float16 cannot"):
        values_in(file, tensor, (1, 1), torch.float16)


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


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_scaled_rotary_embeddings_are_compared(tmp_path: Path, kind: str) -> None:
    gguf_directory(tmp_path, "llama")
    config = open_config(tmp_path / "original")
    length = {"original_max_position_embeddings": 32} if kind == "yarn" else {}
    config.rope_parameters = {"rope_type": kind, "factor": 4.0, "rope_theta": 10000.0, **length}
    file = read_model(tmp_path / "checkpoint" / "model.gguf")
    with pytest.raises(UserError, match=r"rope\.scaling\.(type: linear|factor: 1), and by"):
        check_keys(file, config)
    keys = {"type": kind, "factor": 4.0, "original_context_length": 32}
    keys = {f"llama.rope.scaling.{key}": value for key, value in keys.items()}
    same = GGUFModel(file.path, "llama", file.keys | keys, file.tensors)
    check_keys(same, config)
    if kind == "yarn":
        config.rope_parameters["attention_factor"] = 1.5
        with pytest.raises(UserError, match=r"attention_factor: 1\.5 of its rotary embeddings"):
            check_keys(same, config)
    config.rope_parameters = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    with pytest.raises(UserError, match="says rope_type dynamic, which is not known as GGUF"):
        check_keys(same, config)


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
    with pytest.raises(UserError, match=r"(\d+) of 300 tokens .* \(token 2: '<more>' there"):
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


def test_scores_stand_for_the_order_of_merges() -> None:
    """llama.cpp joins the pair with the best score, Hugging Face the first pair of its list."""
    tokens = ["<unk>", "▁", "a", "b", "ab", "▁ab", "\n\n"]
    merges = [("a", "b"), ("▁", "ab"), ("\n", "\n")]
    keys = {
        "tokenizer.ggml.scores": [0.0, -2.0, -3.0, -4.0, -0.0, -1.0, -1000.0],
        "tokenizer.ggml.token_type": [2, 1, 1, 1, 1, 1, 4],
    }
    file = GGUFModel(Path("m.gguf"), "llama", keys, {})
    check_scores(file, tokens, merges)
    keys["tokenizer.ggml.scores"][5] = 1.0
    with pytest.raises(UserError, match=r"1 of the 7 tokens of m\.gguf have scores that join them"):
        check_scores(file, tokens, merges)
    del keys["tokenizer.ggml.scores"]
    with pytest.raises(UserError, match=r"not one number of tokenizer\.ggml\.scores for each"):
        check_scores(file, tokens, merges)


def test_rows_behind_the_last_token_may_be_missing(tmp_path: Path) -> None:
    """Converters leave out rows that no token has; llama.cpp then has no logits for them."""
    model, _ = gguf_directory(tmp_path, "gemma3_text")
    original = tmp_path / "original"
    wanted = logits_of(model)
    config = read_json(original / "config.json")
    model.resize_token_embeddings(280)
    for directory in (original, tmp_path / "checkpoint"):
        rows = {"quantization_config": {"quant_method": "gguf", "file": "model.gguf"}}
        write_json(directory / "config.json", config | rows)
    write_gguf(tmp_path / "checkpoint" / "model.gguf", model, "gemma3_text")
    found = load(tmp_path / "checkpoint")
    assert found.model.config.vocab_size == 280
    ids = torch.randint(3, 49, (4, 24), generator=torch.Generator().manual_seed(5))
    logits = found.model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(logits, wanted[..., :280], rtol=1e-4, atol=1e-4)
    model.resize_token_embeddings(310)
    write_gguf(tmp_path / "checkpoint" / "model.gguf", model, "gemma3_text")
    with pytest.raises(UserError, match=r"has 310 rows of token_embd\.weight, .* there are 300"):
        load(tmp_path / "checkpoint")


def test_a_head_of_its_own_and_a_missing_one(tmp_path: Path) -> None:
    """llama.cpp's quantizer may store the head apart though the original ties it."""
    model, _ = gguf_directory(tmp_path, "llama")
    path = tmp_path / "checkpoint" / "model.gguf"
    config = read_json(tmp_path / "checkpoint" / "config.json")
    write_json(path.parent / "config.json", config | {"tie_word_embeddings": False})
    with pytest.raises(UserError, match=r"has no output\.weight, and the original's head is not"):
        load(path.parent)
    write_json(path.parent / "config.json", config)
    head = torch.randn(300, 64)
    write_gguf(path, model, "llama", head=head)
    loaded = load(path.parent)
    hidden = loaded.model.model(torch.tensor([[4, 5, 6]])).last_hidden_state
    found = loaded.model(torch.tensor([[4, 5, 6]])).logits
    torch.testing.assert_close(found, hidden @ head.T, rtol=1e-4, atol=1e-4)
    assert not torch.equal(loaded.model.lm_head.weight, loaded.model.model.embed_tokens.weight)


def test_words_are_cut_as_the_originals_tokenizer_cuts_them(
    llama: tuple[Path, Any], tmp_path: Path
) -> None:
    """What llama.cpp does with a text before it joins tokens, by the name that a file says.

    It is told and not refused. Prompts are given as tokens, and the original that transformers made
    of a GGUF file has lost what the file says.
    """
    folder, model = llama
    for said, told in (
        ("gpt-2", None),
        ("phi-2", None),  # the same by another name
        (None, "is not known"),  # as converters once wrote it
        ("of-tomorrow", "is not known"),
        ("qwen2", "cuts texts as gpt-2 does"),
        ("smollm", "cuts texts as gpt-2 does"),
    ):
        keys = {"tokenizer__ggml__pre": said}
        write_gguf(tmp_path / "other.gguf", model, "llama", Type.Q8_0, **keys)
        file = read_model(tmp_path / "other.gguf")
        notes = check_vocabulary(file, folder / "original")
        assert len(notes) == (told is not None)
        assert told is None or told in notes[0]


def test_a_padding_token_of_its_own_is_told_and_other_tokens_are_not_taken(
    llama: tuple[Path, Any], tmp_path: Path
) -> None:
    """Unsloth's files of Qwen have one in a row that the original leaves unused."""
    folder, model = llama
    tokens, types = vocabulary_of(folder)
    number = tokens.index("[PAD299]")
    tokens[number], types[number] = "<|PAD_TOKEN|>", 3
    keys = {"tokenizer__ggml__tokens": tokens, "tokenizer__ggml__token_type": types}
    padding = {"tokenizer__ggml__padding_token_id": number}
    write_gguf(tmp_path / "own.gguf", model, "llama", Type.Q8_0, **keys, **padding)
    (told,) = check_vocabulary(read_model(tmp_path / "own.gguf"), folder / "original")
    assert "padding token" in told
    assert "'<|PAD_TOKEN|>', token 299" in told
    write_gguf(tmp_path / "other.gguf", model, "llama", Type.Q8_0, **keys)
    with pytest.raises(UserError, match=r"1 of 300 tokens .* differ"):
        check_vocabulary(read_model(tmp_path / "other.gguf"), folder / "original")


def vocabulary_of(folder: Path) -> tuple[list[str], list[int]]:
    """The tokens and types that the file of `folder` says."""
    keys = read_model(folder / "checkpoint" / "model.gguf").keys
    return [token.decode() for token in keys["tokenizer.ggml.tokens"]], list(
        keys["tokenizer.ggml.token_type"]
    )
