"""Images and vLLM: what it is handed, what is refused and, where there is one, vLLM itself."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from image_writers import random_gray, write_png
from safetensors.torch import load_file, save_file
from tiny_architectures import tiny_model
from tiny_images import tiny_vision_model
from tiny_processors import save_shown

from radquant.errors import UserError
from radquant.files import write_json
from radquant.generation import vllm_images, vllm_job
from radquant.generation.engines.kind import Wanted
from radquant.generation.generate import Writing, task_of
from radquant.generation.opening import open_precision
from radquant.generation.prompting import prompts_of
from radquant.generation.stage import Reading
from radquant.generation.vision import features_for, with_features
from radquant.generation.vllm_images import placed, write_images
from radquant.generation.vllm_limits import check_configuration, check_images
from radquant.image_files import image_files
from radquant.prompts import Prompt
from radquant.vision.features import Features, ImageFeatures

ROWS: list[dict[str, Any]] = [
    {"id": "a", "indication": "cough", "images": "0.png", "findings": "the lungs are clear"},
    {"id": "b", "indication": "fever pain .", "images": "1.png;0.png", "findings": "no pain ."},
]

GEMMA: dict[str, Any] = {"model_type": "gemma3"}


def prompt_of(files: Any, ids: list[int]) -> Prompt:
    return Prompt("r", "t", ids, 0, "", [], images=tuple(files), types=(1,) * len(ids))


def test_features_stand_where_the_images_tokens_are(tmp_path: Path) -> None:
    """Images of several sizes, one of them between tokens of its own, and one shown twice."""
    for n in range(2):
        write_png(tmp_path / f"{n}.png", random_gray(n))
    row = {"id": "r", "images": "0.png;1.png;0.png"}
    files = image_files(row, "images", tmp_path)
    grid = {"image_grid_thw": torch.tensor([[1, 2, 6]])}
    held = {
        files[0].sha256: ImageFeatures(torch.rand(2, 3)),
        files[1].sha256: ImageFeatures(torch.rand(3, 3), inputs=grid),
    }
    prompt, text = prompt_of(files, [5, 9, 9, 5, 9, 5, 9, 9, 9, 9, 5]), prompt_of((), [])
    stored = Features("v", "p", "float32", held=held)
    found = write_images([prompt, text], stored, 9, tmp_path / "f")
    names = [file.sha256 for file in files]
    places = [[1, 2], [4, 6, 7], [8, 9]]
    assert found == [
        [{"image": n, "places": p} for n, p in zip(names, places, strict=True)],
        [],
    ]
    job = {"images": found, "features": str(tmp_path / "f")}
    read = vllm_images.read_images(job)
    assert read.keys() == held.keys()
    for name, image in held.items():
        assert read[name].keys() == {"features", *image.inputs}
        assert torch.equal(read[name].pop("features"), image.embeddings)
        assert all(torch.equal(tensor, grid[key]) for key, tensor in read[name].items())
    assert vllm_images.most_tokens(job) == 3
    assert len(list((tmp_path / "f").iterdir())) == 2
    with pytest.raises(UserError, match="report r: its prompt has 7 tokens for images, whose"):
        placed(prompt, [(names[0], 2), (names[1], 4)], 9)


def test_what_vllm_is_told_of_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the words of its own types: the range of an image, and which tokens are its own."""
    inputs = SimpleNamespace(mm_input=lambda *a: a, tokens_input=lambda ids: ("tokens", ids))
    names = ("MultiModalBatchedField", "MultiModalFieldElem", "PlaceholderRange")
    multimodal: Any = SimpleNamespace(**dict.fromkeys(names, SimpleNamespace))
    multimodal.MultiModalKwargsItem = multimodal.MultiModalKwargsItems = dict
    monkeypatch.setitem(sys.modules, "vllm.inputs.engine", inputs)
    monkeypatch.setitem(sys.modules, "vllm.multimodal.inputs", multimodal)
    assert vllm_images.prompt_with([7, 8], [], {}) == ("tokens", [7, 8])
    images = [{"image": "x", "places": [1, 2]}, {"image": "y", "places": [4, 6]}]
    grid = torch.tensor([[1, 2, 4]])
    held = {"x": {"features": torch.ones(2, 3)}, "y": {"features": torch.zeros(2, 3), "grid": grid}}
    ids, kwargs, hashes, ranges = vllm_images.prompt_with([9] * 8, images, held)
    assert (ids, hashes) == ([9] * 8, {"image": ["x", "y"]})
    for item, name in zip(kwargs["image"], "xy", strict=True):
        assert item.keys() == held[name].keys()
        assert item["features"].data is held[name]["features"]
    assert kwargs["image"][1]["grid"].data.tolist() == [1, 2, 4]  # as of one item of a batch
    whole, parted = ranges["image"]
    assert (whole.offset, whole.length) == (1, 2)
    assert not hasattr(whole, "is_embed")
    assert (parted.offset, parted.length, parted.is_embed.tolist()) == (4, 3, [True, False, True])


def test_vllm_is_told_of_images_without_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of what it would load of the model's own; it asks with and without a name."""
    registry = SimpleNamespace()
    processing: Any = SimpleNamespace(InputProcessingContext=lambda *given: given)
    processing.BaseProcessingInfo = type("Base", (), {"__init__": lambda self, ctx: None})
    monkeypatch.setitem(
        sys.modules, "vllm.multimodal", SimpleNamespace(MULTIMODAL_REGISTRY=registry)
    )
    monkeypatch.setitem(sys.modules, "vllm.multimodal.processing", processing)
    vllm_images.without_processor(256)
    made = registry.create_processor("config", tokenizer="words")
    for each in (registry.get_processing_info("config"), made.info):
        assert each.get_supported_mm_limits() == {"image": None}
        assert each.get_mm_max_tokens_per_item(seq_len=9, mm_counts={}) == {"image": 256}
    assert made.get_dummy_mm_inputs({"image": 1}, cache=None) is None


def test_an_environment_without_torchvision_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # as if it were not there
    with pytest.raises(UserError, match=r"need torchvision, .* environment \(ModuleNotFound"):
        vllm_images.check_torchvision()


@pytest.mark.parametrize(
    ("config", "on_cpu", "said"),
    [
        (GEMMA | {"mm_tokens_per_image": 4, "text_config": {"sliding_window": 8}}, False, None),
        (GEMMA, True, "see each other both ways, which vLLM on a CPU cannot"),
        (GEMMA, False, None),
        (
            GEMMA | {"text_config": {"sliding_window": 128}},
            False,
            "sliding window of 128, and an image has 256; use engine transformers",
        ),
        (
            {
                "model_type": "gemma3",
                "text_config": {"sliding_window": 8},
                "mm_tokens_per_image": 4,
            },
            False,
            None,
        ),
        ({"model_type": "llava"}, True, None),
        (
            {"model_type": "mistral3"},
            True,
            "a model of type 'mistral3' are not handed to vLLM; use",
        ),
        ({"model_type": "qwen2_5_vl"}, True, None),
        ({"model_type": "qwen3_vl"}, False, "a model of type 'qwen3_vl' are not handed to"),
        ({"model_type": "gemma4"}, False, "a model of type 'gemma4' are not handed to"),
        ({"model_type": "llama"}, False, "which is shown no images"),
    ],
)
def test_which_images_vllm_reads_as_the_model_was_trained_to(
    tmp_path: Path, config: dict[str, Any], on_cpu: bool, said: str | None
) -> None:
    write_json(tmp_path / "config.json", config)
    if said is None:
        check_images(tmp_path, on_cpu)
        return
    with pytest.raises(UserError, match=said) as refused:
        check_images(tmp_path, on_cpu)
    assert "\n" not in str(refused.value)


def test_images_are_encoded_in_the_dtype_that_reads_them() -> None:
    """Which for auto on a CPU is another than vLLM's; a GPU's is the same."""
    compute = {"device": "cpu", "dtype": "auto"}
    config: dict[str, Any] = {"compute": compute, "task": {"image_column": "images"}}
    config["precisions"] = {}
    with pytest.raises(UserError, match=r"dtype auto is float32 .* set compute\.dtype bfloat16"):
        check_configuration(config)
    check_configuration(config | {"compute": compute | {"dtype": "bfloat16"}})
    check_configuration(config | {"compute": compute | {"device": "cuda"}})


def opened_with(engine: str, directory: Path, **more: Any) -> Any:
    wanted = Wanted(directory, "cpu", "float32", images=True, folder=directory.parent, **more)
    return open_precision(engine, wanted)


def reading_of(folder: Path, rows: list[dict[str, Any]] = ROWS) -> Reading:
    for n, shape in enumerate(((24, 24), (40, 24), (16, 48))):
        write_png(folder / f"{n}.png", random_gray(n, shape))
    shown = [image_files(row, "images", folder) for row in rows]
    template = "describe this image {indication}"
    return Reading(template, rows, shown, [[] for _ in rows], "findings", folder / "eval.csv")


def save_tiny(kind: str, directory: Path) -> None:
    """Heads of 32 channels, from which on vLLM has attention for CPUs."""
    if kind == "gemma3":
        weights = tiny_vision_model(directory, sliding_window=64) / "model.safetensors"
        tensors = load_file(weights)
        for name in tensors:  # what attention adds decides what is written
            tensors[name] *= 30 if name.endswith("post_attention_layernorm.weight") else 1
        save_file(tensors, weights, {"format": "pt"})
        return
    save_shown(kind, tiny_model(kind, num_attention_heads=2, num_key_value_heads=1), directory)


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_the_job_has_the_features_and_nothing_is_left_of_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompts are those of transformers; the features those that it is handed."""
    save_tiny(kind, tmp_path / "model")
    reading, writing = reading_of(tmp_path), Writing("p", 2, 5)
    _, theirs = opened_with("transformers", tmp_path / "model")
    _, opened = opened_with("vllm", tmp_path / "model", python=Path(sys.executable))
    made = prompts_of(opened, reading, 5)
    assert [p.ids for p in made] == [p.ids for p in prompts_of(theirs, reading, 5)]
    task = with_features(opened, task_of(opened, made, writing))
    expected = features_for(theirs, made)
    assert expected is not None
    seen: dict[str, Any] = {}

    def instead(command: list[str], **_: Any) -> Any:
        seen.update(vllm_job.read_json(Path(command[-2])))
        files = list(Path(seen["features"]).iterdir())
        seen["held"] = {path.stem: load_file(path) for path in files}
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(vllm_job.subprocess, "run", instead)
    with pytest.raises(UserError, match="vLLM failed"):
        vllm_job.write(opened, task)
    assert seen["prompts"] == [prompt.ids for prompt in task.prompts]
    for prompt, images in zip(task.prompts, seen["images"], strict=True):
        assert [each["image"] for each in images] == [file.sha256 for file in prompt.images]
        assert [n for each in images for n in each["places"]] == [
            n for n, token in enumerate(prompt.ids) if token == 49
        ]
        for file in prompt.images:
            held, image = seen["held"][file.sha256], expected.of(file)
            assert torch.equal(held.pop("features"), image.embeddings)
            assert held.keys() == image.inputs.keys()
            assert all(torch.equal(held[name], image.inputs[name]) for name in held)
            held["features"] = image.embeddings
    assert not list(tmp_path.glob(".vllm-*"))


# -------------------------------------------------------------------------------------- for real


@pytest.mark.skipif(
    not os.environ.get("RADQUANT_TEST_VLLM"),
    reason="vLLM's environment takes GB; RADQUANT_TEST_VLLM names the Python of one to use",
)
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl", "gemma3"])
def test_vllm_writes_what_transformers_writes_of_images(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, token for token.

    Gemma 3's images are read in one direction by both: on a CPU vLLM can do no other. All else of
    its way through vLLM, features, places and embeddings, is that on a GPU.
    """
    directory = tmp_path / "model"
    save_tiny(kind, directory)
    if kind == "gemma3":
        monkeypatch.setattr(vllm_job, "check_images", lambda *_: None)
    python = Path(os.environ["RADQUANT_TEST_VLLM"])
    found = written("vllm", directory, reading_of(tmp_path), python=python)
    expected = written("transformers", directory, reading_of(tmp_path), one_direction=True)
    assert found == expected


@pytest.mark.parametrize("kind", ["llava", "gemma3"])
def test_what_is_written_tells_how_images_are_read(kind: str, tmp_path: Path) -> None:
    """So that equal outputs say something: other images, and another mask, are other outputs."""
    save_tiny(kind, tmp_path / "model")
    others = [row | {"images": row["images"].replace("0.png", "2.png")} for row in ROWS]
    usual, other = reading_of(tmp_path), reading_of(tmp_path, others)
    one = written("transformers", tmp_path / "model", usual, one_direction=True)
    changed = written("transformers", tmp_path / "model", other, one_direction=True)
    assert one != changed
    both = written("transformers", tmp_path / "model", usual)
    assert (both == one) == (kind != "gemma3")


def written(
    engine: str, directory: Path, reading: Reading, one_direction: bool = False, **more: Any
) -> Any:
    """What an engine writes of the rows. one_direction: images are read as text is."""
    computing, opened = opened_with(engine, directory, **more)
    if one_direction:
        one_way(opened.wanted.loaded.model)
    task = task_of(opened, prompts_of(opened, reading, 12), Writing("p", 2, 12))
    return computing.write(opened, with_features(opened, task)).work.results


def one_way(model: Any) -> None:
    """Let Gemma 3 take all tokens for text's when it makes its mask."""
    forward = model.model.forward

    def without_types(*given: Any, token_type_ids: Any = None, **more: Any) -> Any:
        if token_type_ids is not None:
            more["token_type_ids"] = torch.zeros_like(token_type_ids)
        return forward(*given, **more)

    model.model.forward = without_types
