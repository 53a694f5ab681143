"""Calibration with images: held against transformers' own forward pass, and a closed form."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from streamed_states import CPU, last_states
from test_image_scripts import PROMPT, clean, run_script, write_corpus
from tiny_images import tiny_vision_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from radquant.checkpoints.streaming import fill
from radquant.errors import UserError
from radquant.families.inspection import decoder_layers
from radquant.files import read_json, write_json
from radquant.image_files import listed_images, read_image
from radquant.quantization.calibration_statistics import Inputs, InputStatistics, collect_statistics
from radquant.quantization.hidden_states import Hidden, embed
from radquant.quantization.original_model import open_original
from radquant.quantization.other_packages import read_sequences
from radquant.quantization.samples import Sample, read_samples

SAMPLES = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose first layer's window is shorter than an image with its prompt, a corpus,
    calibration samples with images, and their features.

    It is stored in bfloat16, which has no √96, the scale of its embedded tokens.
    """
    folder = write_corpus(tmp_path_factory.mktemp("calibration-images"))
    store_in_bfloat16(tiny_vision_model(folder / "original", sliding_window=8, hidden_size=96))
    run_script(
        *("fetch_corpus", "--format", "table", "--path", folder / "table.csv"),
        *("--id-column", "study", "--group-column", "patient", "--image-column", "files"),
        *("--output", folder / "raw.parquet"),
    )
    clean(folder, folder, "--image-root", folder / "images")
    calibration_set(folder, "--image-weight", 0.25)
    run_script(
        *("encode_images", "--model", folder / "original", "--reports", folder / "images.csv"),
        *("--image-root", folder / "images", "--device", "cpu", "--dtype", "float32"),
        *("--output", folder / "features" / "shard-1-of-1.parquet"),
        *("--metrics", folder / "features" / "shard-1-of-1.json"),
    )
    return folder


def store_in_bfloat16(model: Path) -> None:
    tensors = load_file(weights := model / "model.safetensors")
    narrow = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(narrow, weights, {"format": "pt"})
    config = read_json(model / "config.json")
    texts = config["text_config"] | {"dtype": "bfloat16"}
    write_json(model / "config.json", config | {"dtype": "bfloat16", "text_config": texts})


def calibration_set(data: Path, *options: object, samples: str = "samples") -> None:
    run_script(
        *("calibration_set", "--model", data / "original", "--train", data / "train.csv"),
        *("--prompt-text", PROMPT, "--with-images", "--target", "findings"),
        *("--samples", SAMPLES, "--image-root", data / "images"),
        *("--images-output", data / "images.csv", "--output", data / f"{samples}.parquet"),
        *("--record", data / f"{samples}.json", *options),
    )


@pytest.fixture(scope="module")
def samples(data: Path) -> list[Sample]:
    return read_samples(data / "samples.parquet", data / "features")


@torch.inference_mode()
def test_hidden_states_are_those_of_the_whole_model(
    data: Path, samples: list[Sample], tmp_path: Path
) -> None:
    found = last_states(data / "original", samples, tmp_path)
    for states, expected in zip(found, by_transformers(data), strict=True):
        torch.testing.assert_close(states, expected, atol=2e-5, rtol=1e-4)


def by_transformers(data: Path) -> list[torch.Tensor]:
    """What the last decoder layer makes of each sample, by transformers' model and processor."""
    model = AutoModelForImageTextToText.from_pretrained(data / "original", dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(data / "original", backend="pil")
    table = pd.read_parquet(data / "samples.parquet")
    found, seen = [], {}
    layer = model.model.language_model.layers[-1]
    layer.register_forward_hook(lambda _, __, output: seen.update(output=output))
    for row in table.to_dict("records"):
        files = [file for file in listed_images(data / "images.csv", str(data / "images"))]
        images = [read_image(file) for file in files if file.report == row["id"]]
        pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
        ids = torch.tensor(row["input_ids"])[None]
        types = (ids == 49).long()
        model(input_ids=ids, pixel_values=pixels, token_type_ids=types)
        output: Any = seen["output"]
        found.append(output[0] if isinstance(output, tuple) else output)
    return found


def test_samples_hold_whole_images(data: Path, samples: list[Sample]) -> None:
    record = read_json(data / "samples.json")
    assert record["images"] == sum(len(sample.images) for sample in samples) > SAMPLES
    assert record["image_weight"] == 0.25
    for sample in samples:
        assert sample.types is not None
        assert int(sample.types.sum()) == 4 * len(sample.images)
        assert torch.equal(sample.types == 1, sample.ids == 49)
        weights = sample.weights
        assert weights is not None
        assert torch.equal(weights, 1 - 0.75 * sample.types)
        behind = sample.behind([1, 7])
        assert behind.types is not None
        assert len(behind.types) == len(behind) > len(sample)


def test_no_image_is_cut(data: Path) -> None:
    calibration_set(data, "--max-tokens", 8, samples="short")
    for row in pd.read_parquet(data / "short.parquet").to_dict("records"):
        assert row["token_types"].sum() == 4 * len(row["images"].split(";"))
        assert len(row["input_ids"]) == row["token_types"].sum() + 8


@torch.inference_mode()
def test_statistics_count_a_token_by_its_weight(
    data: Path, samples: list[Sample], tmp_path: Path
) -> None:
    source = open_original(data / "original")
    lengths, width = tuple(map(len, samples)), source.config.get_text_config().hidden_size
    states = [Hidden(tmp_path / str(n), lengths, width) for n in range(2)]
    arguments = embed(source, samples, states[0], CPU)
    layer = decoder_layers(source.model, source.architecture)[0]
    places = source.layer_tensors(0)
    fill(layer, {own: source.stored[stored] for own, stored in places.items()}, CPU)
    given = [each[0] for each in arguments]
    inputs = Inputs(states[0], given, 0, CPU, [sample.weights for sample in samples])
    found = collect_statistics(layer, source.architecture, inputs, states[1], keep=False)[0]
    x = torch.cat([layer.input_layernorm(states[0].read(n, CPU))[0] for n in range(SAMPLES)])
    weights = torch.cat([sample.weights for sample in samples])  # type: ignore[misc]
    torch.testing.assert_close(found.gram, x.T @ torch.diag(weights) @ x, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.magnitude, (x.abs() * weights[:, None]).sum(0))
    assert found.tokens == pytest.approx(float(weights.sum()))


def test_a_weight_of_one_changes_no_bit() -> None:
    x = torch.randn(1, 9, 16)
    plain, weighted = InputStatistics.empty(16, CPU), InputStatistics.empty(16, CPU)
    plain.add(x)
    weighted.add(x, weights=torch.ones(9))
    assert torch.equal(plain.gram, weighted.gram)


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_images_are_calibrated_on(data: Path, tmp_path: Path, method: str) -> None:
    """The checkpoint differs from that of the same samples without images' say."""
    hashes = []
    for name, options in {"one": [], "none": ["--image-weight", 0]}.items():
        calibration_set(data, *options, samples=name)
        output = tmp_path / name
        run_script(
            *("quantize", "--model", data / "original", "--method", method, "--bits", 4),
            *("--group-size", 32, "--calibration", data / f"{name}.parquet", "--device", "cpu"),
            *("--features", data / "features", "--output", output),
        )
        record = read_json(output / "quantization.json")
        assert record["calibration"]["images"] > SAMPLES
        hashes.append((output / "model.safetensors").read_bytes())
    assert hashes[0] != hashes[1]


def test_images_that_changed_behind_the_samples_are_told(data: Path, tmp_path: Path) -> None:
    """Otherwise quantization would find no features of theirs, or those of another sample."""
    changed = Path(shutil.copytree(data, tmp_path / "changed"))
    listed = listed_images(changed / "images.csv", str(changed / "images"))
    first = listed[0].path
    other = next(file.path for file in listed if file.report != listed[0].report)
    first.write_bytes(other.read_bytes())
    said = r"is another than when .*images\.csv was made.*; delete .*images\.csv and run again"
    with pytest.raises(UserError, match=said):
        listed_images(changed / "images.csv", str(changed / "images"))
    calibration_set(changed, "--image-weight", 0.25)
    assert len(listed_images(changed / "images.csv", str(changed / "images"))) == len(listed)


def test_joined_texts_show_no_images(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        calibration_set(data, "--pack", samples="packed")
    assert "would part images; leave out --pack or --image-root" in capsys.readouterr().err


def test_samples_with_images_need_features(data: Path) -> None:
    with pytest.raises(UserError, match="give their folder of features by --features"):
        read_samples(data / "samples.parquet")
    config = argparse.Namespace()
    with pytest.raises(UserError, match="which AutoAWQ cannot be shown here"):
        read_sequences(data / "samples.parquet", config, "AutoAWQ")
