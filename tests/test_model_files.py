"""Which files and tensors are the model; what programs would read differently is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_llama

from radquant.checkpoints.loading import load
from radquant.checkpoints.original import check_original
from radquant.errors import UserError
from radquant.fetching import model_from_directory
from radquant.model_checks import check_folder
from radquant.model_files import SMALL, read_header
from radquant.quantization.original_model import open_original

INDEX = "model.safetensors.index.json"
IDS = torch.tensor([[4, 5, 6, 7, 8]])
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "untied", tie_word_embeddings=False)


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    def damage(model: Path) -> None:
        found = change(load_file(model / "model.safetensors"))
        save_file(found, model / "model.safetensors", {"format": "pt"})

    return damage


def config(**values: object) -> Damage:
    def damage(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def text(name: str, content: str) -> Damage:
    return lambda model: (model / name).write_text(content)


def index(**files: str) -> Damage:
    return text(INDEX, json.dumps({"metadata": {}, "weight_map": files}))


def shard(model: Path) -> None:
    """Two files, and the index that names them."""
    found = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    where = {name: f"model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(found)}
    for file in set(where.values()):
        part = {name: found[name] for name in found if where[name] == file}
        save_file(part, model / file, {"format": "pt"})
    index(**where)(model)


def after_sharding(damage: Damage) -> Damage:
    return lambda model: (shard(model), damage(model))


def copy_shard(model: Path) -> None:
    shutil.copy(model / "model-00001-of-00002.safetensors", model / "model.safetensors")


def move_names(model: Path) -> None:
    found = json.loads((model / INDEX).read_text())["weight_map"]
    first, second = sorted(set(found.values()))
    moved = next(name for name, file in found.items() if file == first)
    index(**found | {moved: second})(model)


def renamed(prefix: str) -> Damage:
    return tensors(lambda found: {prefix + name: value for name, value in found.items()})


def swap(suffix: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    return tensors(lambda t: {n: change(v) if n.endswith(suffix) else v for n, v in t.items()})


def repeat_key(model: Path) -> None:
    path = model / "config.json"
    path.write_text(path.read_text().replace("{", '{"vocab_size": 5,', 1))


def move_config(model: Path) -> None:
    (model / "inner").mkdir()
    (model / "config.json").rename(model / "inner" / "config.json")


def lay_pipe(model: Path) -> None:
    (model / "generation_config.json").unlink(missing_ok=True)
    os.mkfifo(model / "generation_config.json")


HEAD = torch.full((17, 64), 0.5)
REFUSED: dict[str, tuple[Damage, str]] = {
    "stale single file": (after_sharding(copy_shard), r"model\.safetensors is not among the files"),
    "a further shard": (
        after_sharding(
            lambda m: shutil.copy(
                m / "model-00001-of-00002.safetensors", m / "model-00001-of-00003.safetensors"
            )
        ),
        r"model-00001-of-00003\.safetensors is not among",
    ),
    "no index": (after_sharding(lambda m: (m / INDEX).unlink()), "and no model.safetensors.index"),
    "stale index": (index(a="model-00001-of-00001.safetensors"), "remove the index if model.safe"),
    "a lost shard": (
        after_sharding(lambda m: (m / "model-00002-of-00002.safetensors").unlink()),
        "names model-00002-of-00002.safetensors, which is not there",
    ),
    "other places": (after_sharding(move_names), "says that .* lies in model-0000"),
    "index too short": (index(a="model.safetensors"), r"model\.safetensors lacks a, which model"),
    "index is a list": (text(INDEX, "[]"), "is no JSON object, but list"),
    "index without metadata": (
        after_sharding(
            lambda m: (m / INDEX).write_text((m / INDEX).read_text().replace("met", ""))
        ),
        'has no "metadata"',
    ),
    "index is broken": (text(INDEX, "{"), "cannot be read as JSON"),
    "index leads out": (index(a="../x.safetensors"), "'../x.safetensors', which is no .safetens"),
    "adapter": (text("adapter_config.json", "{}"), "adapter_config.json belongs to an adapter"),
    "adapter of MLX": (text("adapters.safetensors", ""), "adapters.safetensors belongs to an ad"),
    "cache of vLLM": (config(kv_cache_dtype="fp8"), "says kv_cache_dtype, which is not applied"),
    "a rounded cache": (
        text("generation_config.json", '{"cache_implementation": "quantized"}'),
        "generation_config.json says cache_implementation quantized",
    ),
    "of ModelOpt": (text("hf_quant_config.json", "{}"), "hf_quant_config.json says how ModelOpt"),
    "fewer layers": (config(num_hidden_layers=1), "says 1 layers, and the files hold 2"),
    "ten million layers": (config(num_hidden_layers=10**7), "num_hidden_layers: 10000000, and"),
    "billions of words": (config(vocab_size=10**10), "vocab_size: 10000000000, and the files"),
    "a width without end": (config(intermediate_size=10**9), "intermediate_size: 1000000000"),
    "another vocabulary": (config(vocab_size=16), r"has shape \[17, 64\], and by config.json"),
    "another head": (tensors(lambda t: t | {"lm_head.weight": HEAD}), "different values; set tie"),
    "no head": (config(tie_word_embeddings=False), "has no weights for lm_head.weight"),
    "a bias": (
        tensors(lambda t: t | {"model.layers.0.self_attn.q_proj.bias": torch.ones(64)}),
        "holds model.layers.0.self_attn.q_proj.bias, which LlamaForCausalLM does not have",
    ),
    "other names": (renamed("module."), r"\(but for module\.model\.embed_tokens\.weight\)"),
    "two names": (tensors(lambda t: t | {"norm.weight": torch.ones(64)}), "which are the same"),
    "8-bit floats": (
        swap("up_proj.weight", lambda t: t.to(torch.float8_e4m3fn)),
        "up_proj.weight is stored as F8_E4M3",
    ),
    "complex": (swap("q_proj.weight", lambda t: t.to(torch.complex64)), "is stored as C64"),
    "transposed": (swap("up_proj.weight", lambda t: t.T.contiguous()), r"has shape \[64, 128\]"),
    "NaN": (config(rms_norm_eps=float("nan")), "config.json holds NaN"),
    "two values": (repeat_key, "config.json has two values of 'vocab_size'"),
    "config elsewhere": (move_config, "holds no config.json; there is one in .*inner"),
    "broken ends": (text("generation_config.json", "{"), "generation_config.json cannot be read"),
    "odd ends": (text("generation_config.json", '{"max_new_tokens": -5}'), "generation_config.jso"),
    "quantized inside": (
        config(text_config={"quantization_config": {"bits": 4}}),
        "quantization_config inside text_config",
    ),
    "of MLX": (config(quantization={"bits": 4}), "says `quantization`, as MLX does"),
    "a pipe": (lay_pipe, "generation_config.json is no file"),
    "heads": (config(num_attention_heads=3), "config.json cannot be read: .*not a multiple"),
}


@pytest.mark.parametrize(("damage", "said"), REFUSED.values(), ids=REFUSED)
def test_all_readers_refuse_it(model: Path, damage: Damage, said: str) -> None:
    damage(model)
    for read in (check_original, load, open_original):
        with pytest.raises(UserError, match=said) as caught:
            read(model)
        assert str(model) in str(caught.value)
        assert "\n" not in str(caught.value)


ACCEPTED: dict[str, Damage] = {
    "shards": shard,
    "harmless buffers": tensors(
        lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    ),
    "the same head": tensors(
        lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()}
    ),
    "without prefix": tensors(lambda t: {n.removeprefix("model."): v for n, v in t.items()}),
    "64 bits": tensors(lambda t: {name: value.double() for name, value in t.items()}),
    "a variant beside": lambda m: save_file({"a": HEAD}, m / "model.fp16.safetensors"),
    "no quantization": config(quantization_config=None),
    "no vision": config(vision_config=None),
}


@pytest.mark.parametrize("damage", ACCEPTED.values(), ids=ACCEPTED)
def test_all_readers_read_the_same(tiny: Path, model: Path, damage: Damage) -> None:
    expected = load(tiny).model(IDS).logits
    damage(model)
    check_original(model)
    assert torch.equal(load(model).model(IDS).logits, expected)
    source = open_original(model)
    assert {own for own in source.own_names.values()} == set(open_original(tiny).own_names.values())


def test_a_head_that_the_configuration_ties_away_is_not_lost(untied: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(untied, tmp_path / "model"))
    config(tie_word_embeddings=True)(model)
    with pytest.raises(UserError, match=r"lm_head\.weight and model\.embed_tokens\.weight are"):
        check_original(model)


def test_links_out_of_a_folder_are_not_followed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (model / "vocab.txt").symlink_to(tmp_path / "secret.txt")
    output = tmp_path / "original"
    with pytest.raises(UserError, match=r"vocab\.txt is a link that leads out of its folder"):
        model_from_directory(model, ["model.safetensors"], False, output)
    for read in (load, open_original):
        with pytest.raises(UserError, match=r"vocab\.txt is a link"):
            read(model)
    assert not output.exists()


def test_links_within_a_folder_and_of_a_hub_snapshot_are(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--some--model"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(model.iterdir())):
        shutil.copy(file, repository / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    check_original(snapshot)
    (snapshot / "NOTICE").symlink_to("../../../model/config.json")
    with pytest.raises(UserError, match="NOTICE is a link that leads out"):
        check_original(snapshot)
    (model / "inner").mkdir()
    (model / "model.safetensors").rename(model / "inner" / "all.bin")
    (model / "model.safetensors").symlink_to("inner/all.bin")
    check_original(model)


def test_only_what_belongs_to_a_model_is_copied(model: Path, tmp_path: Path) -> None:
    for name in ("generated_predictions.txt", "trainer_state.json", "eval_results.json"):
        (model / name).write_text("{}")
    save_file({"a": HEAD}, model / "rng.safetensors")
    (model / "LICENSE.txt").write_text("free")
    model_from_directory(model, ["model.safetensors"], False, tmp_path / "original")
    copied = {path.name for path in (tmp_path / "original").iterdir() if path.suffix != ".sha256"}
    beside = {"generated_predictions.txt", "trainer_state.json", "eval_results.json"}
    assert copied == {p.name for p in model.iterdir()} - beside - {"rng.safetensors"} | {
        "source.json"
    }


@pytest.mark.parametrize(
    "named",
    [
        ["model.safetensors"],
        ["model-00001-of-00002.safetensors"],
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "other"],
    ],
)
def test_the_settings_name_all_files_of_the_model(model: Path, named: list[str]) -> None:
    shard(model)
    with pytest.raises(UserError, match=r"model: weights .*, and the weight files of .* are model"):
        check_folder(model, named)
    check_folder(model, [INDEX, *(f"model-0000{n}-of-00002.safetensors" for n in (1, 2))])
    check_folder(model / "nowhere", named)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn),
        *(torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool),
    ],
)
def test_small_tensors_are_read_and_large_ones_mapped(dtype: torch.dtype, tmp_path: Path) -> None:
    many = SMALL // dtype.itemsize
    values = torch.randint(0, 2, (many + 1,), dtype=torch.int64).to(dtype)
    stored = {"a large one": values, "small": values[:-1], "matrix": values[:6].reshape(2, 3)}
    stored |= {"none": values[:0].reshape(0, 4), "one": values[1].reshape(())}
    stored = {name: tensor.clone() for name, tensor in stored.items()}
    save_file(stored, file := tmp_path / "stored.safetensors")
    found = {}
    for name, tensor in sorted(read_header(file).items(), reverse=True):  # the large one last
        found[name] = tensor.load()
        assert (str(file) in Path("/proc/self/maps").read_text()) == ("a large one" in found), name
    assert found.keys() == stored.keys()
    for name, tensor in stored.items():
        assert found[name].dtype == dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name].float(), tensor.float())
