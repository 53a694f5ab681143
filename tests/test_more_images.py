"""Reports from images by each further family, against its own class and processor in float32."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from image_writers import random_gray, write_png
from PIL import Image
from streamed_states import last_states
from tiny_architectures import tiny_model
from tiny_processors import MARKS, save_shown, tiny_tokenizer
from transformers import AutoModelForImageTextToText

from radquant import prompts
from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.finite import norm, relative
from radquant.generation import batching, lean_steps, lean_writing
from radquant.generation.batching import shared_prefix
from radquant.generation.lean_decoder import take_over, unsupported
from radquant.generation.lean_likelihood import answer_nll as answers_nll
from radquant.generation.prefix import run_prefix
from radquant.generation.transformers_likelihood import answer_nll
from radquant.generation.transformers_writing import generate_batch, greedy_config
from radquant.image_files import image_files
from radquant.kernels import cpu
from radquant.quantization.samples import Sample
from radquant.vision.encoding import encode_here
from radquant.vision.handing import hand_out
from radquant.vision.part import open_vision
from radquant.vision.processors import load_processor

TEMPLATE = "describe this image {indication}"
SHAPES = [(40, 24), (24, 24), (16, 40), (48, 16)]
ROWS: list[dict[str, Any]] = [
    {"id": "a", "indication": "cough", "images": "0.png", "findings": "the lungs are clear"},
    {"id": "b", "indication": "fever and pain .", "images": "1.png;2.png", "findings": "no pain ."},
    {"id": "c", "indication": "", "images": "3.png", "findings": "heart size is normal ."},
]


def plain_inputs(processor: Any, prompt: prompts.Prompt, row: dict[str, Any]) -> dict[str, Any]:
    """What transformers' own code makes of one report."""
    images = [Image.open(file.path).convert("RGB") for file in prompt.images]
    content = [{"type": "image", "image": image} for image in images]
    text = {"type": "text", "text": TEMPLATE.format(**row)}
    made: dict[str, Any] = processor.apply_chat_template(
        [{"role": "user", "content": [*content, text]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return made


@torch.inference_mode()
def plain_nll(model: Any, inputs: dict[str, Any], answer: list[int]) -> float:
    more, start = torch.tensor([answer]), inputs["input_ids"].shape[1]
    given = dict(inputs) | {"input_ids": torch.cat([inputs["input_ids"], more], 1)}
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in given:
            given[name] = torch.cat([given[name], torch.zeros_like(more)], 1)
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    logits = model(**given, use_cache=False).logits[0, start - 1 : -1]
    return -float(logits.double().log_softmax(-1).gather(-1, more.T).sum())


@torch.inference_mode()
def plain_states(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """What the last decoder layer makes of one report, by transformers' own model."""
    found: list[Any] = []
    layers = model.model.language_model.layers
    handle = layers[-1].register_forward_hook(lambda _, __, output: found.append(output))
    model(**inputs, use_cache=False)
    handle.remove()
    return found[0][0] if isinstance(found[0], tuple) else found[0]


@pytest.fixture(autouse=True)
def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixtral's processor imports a function that counts tokens, from code that needs torchvision.

    It is called by serving engines alone.
    """
    needs = types.ModuleType("transformers.models.pixtral.image_processing_pixtral")
    monkeypatch.setattr(needs, "get_resize_output_image_size", None, raising=False)
    monkeypatch.setitem(sys.modules, needs.__name__, needs)


@pytest.mark.parametrize("kind", MARKS)
def test_a_family_is_shown_images(kind: str, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    save_shown(kind, tiny_model(kind, max_position_embeddings=512), directory)
    for number, shape in enumerate(SHAPES):
        write_png(tmp_path / f"{number}.png", random_gray(number, shape))
    loaded = load(directory, vision=False)
    hand_out(loaded.model)
    if kind == "qwen3_5":  # the class that this type's tokenizer has knows no words, only bytes
        loaded.tokenizer = tiny_tokenizer(kind)
    processor = load_processor(directory, loaded.tokenizer)
    made = [
        prompts.chat_prompt(
            *(loaded.tokenizer, TEMPLATE, row, [], "findings", 400),
            with_answer=True,
            images=image_files(row, "images", tmp_path),
            processor=processor,
        )
        for row in ROWS
    ]
    inputs = [plain_inputs(processor, *each) for each in zip(made, ROWS, strict=True)]
    for prompt, given in zip(made, inputs, strict=True):
        assert prompt.ids == given["input_ids"][0].tolist()
    if kind != "llava":  # whose images are all cut to one size
        assert made[0].ids.count(49) != made[2].ids.count(49)
    vision = open_vision(directory, torch.device("cpu"), torch.float32, processor=processor)
    features = encode_here(vision, [file for prompt in made for file in prompt.images])
    plain = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()
    expected = [
        plain_nll(plain, given, prompt.answer_ids)
        for given, prompt in zip(inputs, made, strict=True)
    ]
    assert answer_nll(loaded.model, made, 0, features=features) == pytest.approx(expected, rel=2e-5)
    longest = max(len(prompt.ids) + len(prompt.answer_ids) for prompt in made)
    prefix = run_prefix(loaded.model, shared_prefix(made), longest)
    found = answer_nll(loaded.model, made, 0, prefix, features)
    assert found == pytest.approx(expected, rel=2e-5)
    swapped = {**inputs[0], "pixel_values": inputs[0]["pixel_values"].flip(-1)}
    assert plain_nll(plain, swapped, made[0].answer_ids) != pytest.approx(expected[0], rel=2e-4)
    config = greedy_config(loaded.model, 5, [2], 0)
    written = generate_batch(loaded.model, loaded.tokenizer, config, made, features=features)
    for output, given, prompt in zip(written, inputs, made, strict=True):
        ids = plain.generate(**given, max_new_tokens=5, do_sample=False)[0, len(prompt.ids) :]
        assert output.text == loaded.tokenizer.decode(ids, skip_special_tokens=True).strip()
    calibrated = [
        Sample(
            torch.tensor(prompt.ids),
            tuple(features.of(file) for file in prompt.images),
            torch.tensor(prompt.types),
        )
        for prompt in made
    ]
    if kind == "qwen3_vl":
        with pytest.raises(UserError, match="add what they see between decoder layers"):
            last_states(directory, calibrated, tmp_path)
    else:
        for given, state in zip(inputs, last_states(directory, calibrated, tmp_path), strict=True):
            expected_state = plain_states(plain, given)
            assert relative(norm(state - expected_state), norm(expected_state)) < 1e-5
    lean = load(directory, vision=False)
    if cpu.unavailable() is not None or unsupported(lean, None) is not None:
        assert kind not in ("llava", "internvl") or cpu.unavailable() is not None
        return
    decoder = take_over(lean, None)
    lean_steps.begin(decoder, batching.shared_prefix(made), 512)
    assert answers_nll(decoder, made, 2, features)[0] == pytest.approx(expected, rel=2e-5)
    ends = lean_writing.Settings(5, frozenset([2]))
    own = lean_writing.generate(decoder, loaded.tokenizer, made, ends, 2, features=features)
    assert own.outputs == written


def test_an_image_that_a_model_cannot_encode_is_told_by_name(tmp_path: Path) -> None:
    """Transformers' own code of Mistral 3 fails where an image leaves one token."""
    save_shown("mistral3", tiny_model("mistral3"), tmp_path / "model")
    write_png(tmp_path / "0.png", random_gray(0, (6, 5)))
    (file,) = image_files(ROWS[0], "images", tmp_path)
    vision = open_vision(tmp_path / "model", torch.device("cpu"), torch.float32)
    with pytest.raises(UserError, match=r"0\.png, named in column 'images' of report a, cannot be"):
        encode_here(vision, [file])
