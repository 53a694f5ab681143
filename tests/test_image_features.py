"""Images encoded once: the same bits in any number of shards, and what changes is noticed."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from image_writers import random_gray, write_png
from safetensors.torch import load_file, save_file
from tiny_images import tiny_vision_model
from tiny_models import store
from transformers import Gemma3ForConditionalGeneration

from radquant.checkpoints.fitting import found_names
from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.files import read_json, write_json, write_table
from radquant.image_digest import images_digest
from radquant.image_files import ImageFile, image_files, read_image
from radquant.packed.grid import QuantizedWeight
from radquant.packed.packing import pack
from radquant.vision import encoding
from radquant.vision.features import ImageFeatures, open_features, read_features, write_features
from radquant.vision.handing import hand_out, handed
from radquant.vision.part import open_vision, vision_hash
from radquant.vision.stage import Encoding, encode_images

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vision_model(tmp_path_factory.mktemp("seeing") / "model")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[ImageFile]:
    """Five images of four contents."""
    root = tmp_path_factory.mktemp("images")
    for n in range(5):
        write_png(root / f"{n}.png", random_gray(n % 4))
    row = {"id": "r", "images": ";".join(f"{n}.png" for n in range(5))}
    return list(image_files(row, "images", root))


def encode(model: Path, files: list[ImageFile], folder: Path, shards: int = 1) -> Path:
    """Encode by as many jobs; the folder of the features."""
    features = folder / "original" / "evaluation"
    for shard in range(1, shards + 1):
        wanted = Encoding(model, files, "cpu", "auto", 1, folder / "store", shard, shards)
        output = features / f"shard-{shard}-of-{shards}.parquet"
        table, record = encode_images(wanted, output)
        write_json(output.with_suffix(".json"), record)
        write_table(output, table)
    return features


def forbid(*_: Any) -> Any:
    raise AssertionError("an image was encoded again")


def test_features_are_the_models_own_in_any_number_of_shards(
    model: Path, files: list[ImageFile], tmp_path: Path
) -> None:
    whole = Gemma3ForConditionalGeneration.from_pretrained(model).eval()
    vision = open_vision(model, CPU, torch.float32)
    found = []
    for shards in (1, 4):
        features = open_features(encode(model, files, tmp_path / str(shards), shards))
        assert len(features.listed) == 4
        found.append([features.of(file) for file in files])
    for file, one, other in zip(files, *found, strict=True):
        assert torch.equal(one.embeddings, other.embeddings)
        pixels = vision.processor.image_processor(
            [read_image(file)], do_pan_and_scan=False, return_tensors="pt"
        )["pixel_values"]
        own = whole.model.get_image_features(pixels, return_dict=True).pooler_output[0]
        assert torch.equal(one.embeddings, own.detach())
        assert one.embeddings.shape == (4, whole.config.text_config.hidden_size)
    assert not torch.equal(found[0][0].embeddings, found[0][1].embeddings)


def test_nothing_but_the_part_that_sees_is_loaded(model: Path) -> None:
    vision = open_vision(model, CPU, torch.float32)
    blind = load(model, vision=False).model
    seeing = {n for n, p in vision.model.named_parameters() if not p.is_meta}
    reading = {n for n, p in blind.named_parameters()}
    whole = {n for n, _ in load(model).model.named_parameters()}
    assert seeing | reading == whole
    assert not seeing & reading
    assert all(("vision_tower" in n or "projector" in n) for n in seeing)


def test_what_is_encoded_is_not_encoded_again(
    model: Path, files: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(model, files[:4], tmp_path)
    first = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.safetensors")}
    quantized = store(model, tmp_path / "w4", "--method", "rtn", "--bits", "4")
    assert vision_hash(quantized) == vision_hash(model)
    monkeypatch.setattr(encoding, "encode_image", forbid)
    features = encode(quantized, files, tmp_path, shards=2)  # other shards, another text part
    assert sorted(path.name for path in features.glob("shard*.parquet")) == [
        "shard-1-of-2.parquet",
        "shard-2-of-2.parquet",
    ]
    assert {path: path.read_bytes() for path in first} == first
    monkeypatch.undo()
    # One of them was cut short: it alone is encoded anew, to the same bits.
    damaged = min(first)
    damaged.write_bytes(first[damaged][:100])
    features_, done = encoding.encode_image, []
    monkeypatch.setattr(encoding, "encode_image", lambda *a: done.append(1) or features_(*a))
    encode(model, files, tmp_path)
    assert done == [1]
    assert read_features(damaged)[0].sha256 in open_features(features).listed.values()


def test_another_vision_part_encodes_anew(model: Path, tmp_path: Path) -> None:
    other = Gemma3ForConditionalGeneration.from_pretrained(model)
    with torch.no_grad():
        other.model.language_model.embed_tokens.weight.mul_(2)
    shutil.copytree(model, tmp_path / "text")
    other.save_pretrained(tmp_path / "text")
    assert vision_hash(tmp_path / "text") == vision_hash(model)
    with torch.no_grad():
        other.model.multi_modal_projector.mm_soft_emb_norm.weight.add_(0.5)
    other.save_pretrained(tmp_path / "text")
    assert vision_hash(tmp_path / "text") != vision_hash(model)


def test_a_packed_vision_part_encodes_as_the_values_that_it_stands_for(
    model: Path, files: list[ImageFile], tmp_path: Path
) -> None:
    """Somebody else's checkpoint, whose vision layers are in AWQ's format."""
    packed = Path(shutil.copytree(model, tmp_path / "packed"))
    tensors = load_file(model / "model.safetensors")
    plain, torch_random = dict(tensors), torch.Generator().manual_seed(0)
    for name in [name for name in tensors if name.endswith("mlp.fc1.weight")]:
        size = (64, 1)
        codes = torch.randint(0, 16, (64, 32), generator=torch_random, dtype=torch.uint8)
        weight = QuantizedWeight(
            codes, torch.full(size, 0.02).half(), torch.full(size, 8, dtype=torch.uint8)
        )
        plain[name] = (codes.float() - 8) * weight.scales.float()  # by the format's definition
        del tensors[name]
        stored = pack(weight, 4).items()
        tensors |= {name.replace("weight", suffix): tensor for suffix, tensor in stored}
    save_file(tensors, packed / "model.safetensors", {"format": "pt"})
    said = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}
    config = read_json(packed / "config.json") | {"quantization_config": said}
    (packed / "config.json").write_text(json.dumps(config))
    vision = open_vision(packed, CPU, torch.float32)
    assert vision.sha256 == vision_hash(packed) != vision_hash(model)
    whole = Gemma3ForConditionalGeneration.from_pretrained(model).eval()
    names = found_names(whole, plain, model)[0]
    whole.load_state_dict({names[name]: plain[name] for name in names}, strict=False)
    pixels = vision.processor.image_processor(
        [read_image(files[0])], do_pan_and_scan=False, return_tensors="pt"
    )["pixel_values"]
    own = whole.model.get_image_features(pixels, return_dict=True).pooler_output[0].detach()
    found = encoding.encode_image(vision, files[0]).embeddings
    torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4)


def test_a_vision_part_rounds_its_inputs_as_its_checkpoint_says(
    model: Path, files: list[ImageFile], tmp_path: Path
) -> None:
    """INT8 weights and inputs in the whole model, against symmetric rounding by hand."""
    packed = Path(shutil.copytree(model, tmp_path / "packed"))
    tensors = load_file(model / "model.safetensors")
    plain = dict(tensors)
    # The last is in PyTorch's own attention, which reads its weight.
    ends = ("mlp.fc1.weight", "q_proj.weight", "attention.out_proj.weight")
    for name in [name for name in tensors if name.endswith(ends)]:
        scale = tensors[name].abs().amax(1, keepdim=True) / 127
        tensors[name] = (tensors[name] / scale).round().to(torch.int8)
        tensors[f"{name}_scale"] = scale
        plain[name] = tensors[name].float() * scale
    save_file(tensors, packed / "model.safetensors", {"format": "pt"})
    eight = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["re:.*fc1$", "re:.*q_proj$", "re:.*attention.out_proj$"],
        "weights": {**eight, "strategy": "channel"},
        "input_activations": {**eight, "strategy": "token", "dynamic": True},
    }
    said = {"quant_method": "compressed-tensors", "format": "int-quantized"}
    said |= {"config_groups": {"group_0": group}}
    config = read_json(packed / "config.json") | {"quantization_config": said}
    (packed / "config.json").write_text(json.dumps(config))
    whole = Gemma3ForConditionalGeneration.from_pretrained(model).eval()
    names = found_names(whole, plain, model)[0]
    whole.load_state_dict({names[name]: plain[name] for name in names}, strict=False)
    vision = open_vision(packed, CPU, torch.float32)
    pixels = vision.processor.image_processor(
        [read_image(files[0])], do_pan_and_scan=False, return_tensors="pt"
    )["pixel_values"]
    kept = whole.model.get_image_features(pixels, return_dict=True).pooler_output[0].detach()

    def by_token(_: Any, given: tuple[torch.Tensor]) -> torch.Tensor:
        scale = given[0].abs().amax(-1, keepdim=True) / 127
        return (given[0] / scale).round() * scale

    for name, module in whole.model.vision_tower.named_modules():
        if name.endswith(("fc1", "q_proj")):
            module.register_forward_pre_hook(by_token)
    own = whole.model.get_image_features(pixels, return_dict=True).pooler_output[0].detach()
    found = encoding.encode_image(vision, files[0]).embeddings
    assert float((found - own).norm()) < float((kept - own).norm()) / 20
    # Text alone passes through no tower.
    assert load(packed).activation_layers == 2


def test_a_missing_or_damaged_image_is_told_by_report_column_and_file(
    model: Path, files: list[ImageFile], tmp_path: Path
) -> None:
    folder = encode(model, files, tmp_path)
    features = open_features(folder)
    lost = replace(files[0], sha256="0" * 64)
    with pytest.raises(
        UserError, match=r"0\.png, named in column 'images' of report r, has no fea"
    ):
        features.of(lost)
    path = next(path for path in tmp_path.rglob(f"{files[0].sha256}.safetensors"))
    found, said = read_features(path)
    write_features(path, ImageFeatures(found.embeddings + 1), said)
    with pytest.raises(UserError, match=r"report r, were changed after they were written"):
        features.of(files[0])
    path.unlink()
    with pytest.raises(UserError, match=r"report r, cannot be read \(FileNotFoundError\)"):
        features.of(files[0])
    (folder / "shard-1-of-1.parquet").rename(folder / "shard-1-of-2.parquet")
    with pytest.raises(UserError, match="does not hold all shards of one encoding"):
        open_features(folder)


def test_further_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    """As Qwen3-VL has them: features of further layers, and a grid."""
    layers = tuple(torch.full((3, 2), float(n), dtype=torch.bfloat16) for n in range(12))
    one = ImageFeatures(layers[1] + 1, layers, {"image_grid_thw": torch.tensor([[1, 2, 6]])})
    write_features(tmp_path / "one.safetensors", one, {"a": "b"})
    found, said = read_features(tmp_path / "one.safetensors")
    assert (found.sha256, said) == (one.sha256, {"a": "b"})
    assert [float(each[0, 0]) for each in found.layers] == list(range(12))
    given = handed([found, found], CPU, torch.float32)
    assert given["pixel_values"].shape == (6, 2 * 13)
    assert given["image_grid_thw"].tolist() == [[1, 2, 6]] * 2


def test_handed_features_are_cut_into_layers(model: Path) -> None:
    blind = load(model, vision=False).model
    hand_out(blind)
    hidden = blind.config.get_text_config().hidden_size
    values = torch.randn(5, 3 * hidden)
    found = blind.model.get_image_features(values, return_dict=True)
    assert torch.equal(found.pooler_output[0], values[:, :hidden])
    layers = torch.cat([each for (each,) in found.deepstack_features], -1)
    assert torch.equal(layers, values[:, hidden:])


def test_the_digest_follows_contents_and_not_times(tmp_path: Path) -> None:
    import pandas as pd

    reports, root, kept = tmp_path / "eval.csv", tmp_path / "images", tmp_path / "kept.json"
    assert images_digest(reports, root, kept) is None
    for n in range(3):
        write_png(root / f"{n}.png", random_gray(n))
    write_table(reports, pd.DataFrame({"id": ["a", "b"], "images": ["0.png;1.png", "2.png"]}))
    first = images_digest(reports, root, kept)
    assert first
    os.utime(root / "0.png", (1, 1))
    assert images_digest(reports, root, kept) == first
    content = (root / "0.png").read_bytes()
    (root / "0.png").unlink()  # a drive that is not there: nothing has changed
    assert images_digest(reports, root, kept) == first
    write_png(root / "0.png", random_gray(9))
    assert images_digest(reports, root, kept) != first
    (root / "0.png").write_bytes(content)
    assert images_digest(reports, root, kept) == first
    # Of two images that have changed places the contents are the same, and the reports' are not.
    (root / "0.png").write_bytes((root / "2.png").read_bytes())
    (root / "2.png").write_bytes(content)
    assert images_digest(reports, root, kept) != first
