"""Reports from images: held against transformers' own code, one report at a time."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_images import plain_inputs, random_gray, tiny_vision_model, write_dicom, write_png
from tiny_models import store, write_samples
from torch.nn import functional as F
from transformers import Gemma3ForConditionalGeneration

from radquant import prompts
from radquant.checkpoints.loading import Loaded, load
from radquant.errors import UserError
from radquant.generation import batching, transformers_likelihood
from radquant.generation import transformers_writing as engine
from radquant.generation.prefix import NOTHING, Prefix, begin, behind_stored, run_prefix, stored_ids
from radquant.image_files import image_files
from radquant.runtime.runtime_file import Runtime, StoredPrefix
from radquant.settings.precision import activations_of, kv_cache_of
from radquant.vision.encoding import encode_here
from radquant.vision.features import Features
from radquant.vision.handing import hand_out
from radquant.vision.part import open_vision
from radquant.vision.processors import load_processor

TEMPLATE = "describe this image {indication}"
# The window of the first layer: one that prompts of 30 tokens exceed, and one that they do not.
WINDOWS = {"sliding": 8, "wide": 128}


def reports(folder: Path) -> list[dict[str, Any]]:
    """Five reports of one to three images, of all three kinds, with texts of different lengths."""
    for n in range(8):
        write_png(folder / f"{n}.png", random_gray(n))
        Image.fromarray(random_gray(50 + n, (60, 80))).save(folder / f"{n}.jpg")
        window = {"WindowCenter": 2000, "WindowWidth": 3000}
        write_dicom(folder / f"{n}.dcm", random_gray(n, levels=4096), **window)
    texts = ["cough", "fever and pain .", "", "chest pain : no fever , no cough .", "pain"]
    named = ["0.png", "1.png;1.dcm", "2.jpg", "3.dcm", "4.png; 5.jpg;6.dcm"]
    answers = ["the lungs are clear", "no effusion .", "heart size is normal .", "clear", "no"]
    return [
        {"id": f"r{n}", "indication": text, "images": images, "findings": answer}
        for n, (text, images, answer) in enumerate(zip(texts, named, answers, strict=True))
    ]


class Shown(NamedTuple):
    """A model, its processor, five reports and their prompts."""

    loaded: Loaded  # without the part that sees
    plain: Any  # the whole model, by transformers alone
    processor: Any
    features: Features  # of the reports' images
    rows: list[dict[str, Any]]
    made: list[prompts.Prompt]


def load_blind(directory: Path, **options: Any) -> Loaded:
    """A model or checkpoint without the part that sees, which is handed features."""
    loaded = load(directory, vision=False, **options)
    assert not any("vision" in name for name, _ in loaded.model.named_parameters())
    hand_out(loaded.model)
    return loaded


def seen_by(directory: Path, made: list[prompts.Prompt]) -> Features:
    vision = open_vision(directory, torch.device("cpu"), torch.float32)
    return encode_here(vision, [file for prompt in made for file in prompt.images])


@pytest.fixture(scope="module", params=WINDOWS)
def shown(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp(request.param)
    directory = tiny_vision_model(folder / "model", sliding_window=WINDOWS[request.param])
    loaded = load_blind(directory)
    processor = load_processor(directory, loaded.tokenizer)
    rows = reports(folder / "images")
    made = [
        prompts.chat_prompt(
            *(loaded.tokenizer, TEMPLATE, row, [], "findings", 100),
            with_answer=True,
            images=image_files(row, "images", folder / "images"),
            processor=processor,
        )
        for row in rows
    ]
    plain = Gemma3ForConditionalGeneration.from_pretrained(directory).eval()
    return Shown(loaded, plain, processor, seen_by(directory, made), rows, made)


def plain_of(processor: Any, prompt: prompts.Prompt, row: dict[str, Any]) -> dict[str, Any]:
    """The processor's own inputs of one report; DICOM through the window's closed form."""
    images = []
    for file in prompt.images:
        if file.path.suffix == ".dcm":
            gray = random_gray(int(file.path.stem), levels=4096).astype(float)
            share = np.clip((gray - 1999.5) / 2999 + 0.5, 0, 1)
            images.append(Image.fromarray(np.rint(share * 255).astype(np.uint8)).convert("RGB"))
        else:
            images.append(Image.open(file.path).convert("RGB"))
    return plain_inputs(processor, images, f"describe this image {row['indication']}")


def plain_greedy(model: Any, inputs: dict[str, Any], count: int) -> list[int]:
    """Decode one sequence without cache, padding or generate()."""
    ids, types, new = inputs["input_ids"], inputs["token_type_ids"], []
    while len(new) < count and new[-1:] != [2]:
        more = torch.tensor([new], dtype=torch.long)
        with torch.inference_mode():
            logits = model(
                input_ids=torch.cat([ids, more], 1),
                token_type_ids=torch.cat([types, torch.zeros_like(more)], 1),
                pixel_values=inputs["pixel_values"],
                use_cache=False,
            ).logits
        new.append(int(logits[0, -1].argmax()))
    return new


def plain_nll(model: Any, inputs: dict[str, Any], answer: list[int]) -> float:
    more = torch.tensor([answer])
    ids = torch.cat([inputs["input_ids"], more], 1)
    with torch.inference_mode():
        logits = model(
            input_ids=ids,
            token_type_ids=torch.cat([inputs["token_type_ids"], torch.zeros_like(more)], 1),
            pixel_values=inputs["pixel_values"],
            use_cache=False,
        ).logits[0, :-1]
    losses = F.cross_entropy(logits.double(), ids[0, 1:], reduction="none")
    return float(losses[-len(answer) :].sum())


def test_tokens_and_types_are_the_processors_own(shown: Shown) -> None:
    processor, rows, made = shown.processor, shown.rows, shown.made
    for row, prompt in zip(rows, made, strict=True):
        inputs = plain_of(processor, prompt, row)
        assert prompt.ids == inputs["input_ids"][0].tolist()
        assert list(prompt.types) == inputs["token_type_ids"][0].tolist()
        assert sum(prompt.types) == 4 * len(prompt.images)
        assert prompt.ids.count(49) == sum(prompt.types)
    assert len({len(prompt.ids) for prompt in made}) > 3


def test_the_shared_tokens_end_before_an_image(shown: Shown) -> None:
    made = shown.made
    first = min(prompt.types.index(1) for prompt in made)
    shared = batching.shared_prefix(made)
    assert shared == made[0].ids[:first]
    assert len(shared) > 3
    # The same image in all of them would be equal tokens, and they hide no difference in the image.
    same = [dataclasses.replace(made[0], id=name) for name in "ab"]
    assert batching.shared_prefix(same) == shared


def prefixes(loaded: Loaded, made: list[prompts.Prompt]) -> list[Prefix]:
    window = loaded.model.config.get_text_config().sliding_window
    shared = run_prefix(loaded.model, batching.shared_prefix(made), 60)
    assert (shared.length > 0) == (window > 60)
    return [NOTHING, shared] if shared.length else [NOTHING]


def test_outputs_equal_plain_greedy_decoding(shown: Shown) -> None:
    loaded, plain, processor, features, rows, made = shown
    expected = [
        plain_greedy(plain, plain_of(processor, prompt, row), 10)
        for prompt, row in zip(made, rows, strict=True)
    ]
    assert len(set(map(tuple, expected))) > 1
    config = engine.greedy_config(loaded.model, 10, [2], 0)
    for prefix in prefixes(loaded, made):
        for batches in ([made], [made[:2], made[2:]]):
            outputs, _ = engine.generate_batches(
                loaded.model, loaded.tokenizer, config, batches, prefix=prefix, features=features
            )
            for output, tokens in zip(outputs, expected, strict=True):
                text = loaded.tokenizer.decode(tokens, skip_special_tokens=True).strip()
                assert (output.text, output.tokens) == (text, len(tokens))


def test_nll_equals_a_plain_computation(shown: Shown) -> None:
    loaded, plain, processor, features, rows, made = shown
    expected = [
        plain_nll(plain, plain_of(processor, prompt, row), prompt.answer_ids)
        for prompt, row in zip(made, rows, strict=True)
    ]
    for prefix in prefixes(loaded, made):
        for members in (slice(0, 5), slice(0, 1), slice(3, 5)):
            found = transformers_likelihood.answer_nll(
                loaded.model, made[members], 0, prefix, features
            )
            assert found == pytest.approx(expected[members], rel=2e-5)


def test_images_matter_and_see_themselves_whole(shown: Shown) -> None:
    """What the two tests above rely on: other pixels, or causal image tokens, give other scores."""
    plain, rows, made = shown.plain, shown.rows, shown.made
    inputs = plain_of(shown.processor, made[1], rows[1])
    right = plain_nll(plain, inputs, made[1].answer_ids)
    swapped = inputs | {"pixel_values": inputs["pixel_values"].flip(0)}
    causal = inputs | {"token_type_ids": torch.zeros_like(inputs["token_type_ids"])}
    for wrong in (swapped, causal):
        change = plain_nll(plain, wrong, made[1].answer_ids) / right - 1
        assert abs(change) > 2e-4  # ten times what they allow


def test_a_stored_prefix_stands_before_images(shown: Shown) -> None:
    """Keys and values of tokens 1 and 5 in front are what the tokens themselves are."""
    loaded, plain, processor, features, rows, made = shown
    front = (5, 1)
    with torch.inference_mode():
        cache = loaded.model(torch.tensor([front]), use_cache=True).past_key_values
    keys, values = ([getattr(at, kind) for at in cache.layers] for kind in ("keys", "values"))
    runtime = Runtime(prefix=StoredPrefix(front, keys, values))
    with_prefix = dataclasses.replace(loaded, runtime=runtime)
    if loaded.model.config.get_text_config().sliding_window < 60:
        with pytest.raises(UserError, match="out of the model's sliding window"):
            begin(with_prefix, 60)
        return
    placed = behind_stored(made, stored_ids(with_prefix))
    assert [len(p.types) for p in placed] == [len(p.ids) for p in placed]
    start = begin(with_prefix, 60)
    whole = run_prefix(loaded.model, batching.shared_prefix(placed), 60, start)
    assert whole.length > start.length == 2
    expected = []
    for prompt, row in zip(made, rows, strict=True):
        inputs = plain_of(processor, prompt, row)
        inputs["input_ids"] = torch.cat([torch.tensor([front]), inputs["input_ids"][:, 1:]], 1)
        inputs["token_type_ids"] = F.pad(inputs["token_type_ids"], (1, 0))
        expected.append(plain_nll(plain, inputs, prompt.answer_ids))
    for prefix in (start, whole):
        found = transformers_likelihood.answer_nll(loaded.model, placed, 0, prefix, features)
        assert found == pytest.approx(expected, rel=2e-5)


ROTATED = ("--transform", "hadamard", "--method", "rtn", "--bits", "8")
ROUNDINGS = [
    ({"bits": 8}, None),
    ({"bits": 8, "granularity": "tensor"}, None),
    ({"bits": 8, "granularity": "group", "group_size": 32}, {"bits": 8}),
    (None, {"bits": 4}),
]


def test_batches_change_nothing_in_other_precisions(shown: Shown, tmp_path: Path) -> None:
    """Packed, rotated, with rounded inputs and cache: a batch scores as each report by itself."""
    loaded, features, made = shown.loaded, shown.features, shown.made
    samples = write_samples(tmp_path)
    source = Path(shown.plain.name_or_path)
    checkpoint = store(source, tmp_path / "rotated", *ROTATED, "--calibration", str(samples))
    original = transformers_likelihood.answer_nll(loaded.model, made, 0, NOTHING, features)
    for activations, cache in ROUNDINGS:
        packed = load_blind(
            checkpoint, rounding=activations_of(activations), kv_cache=kv_cache_of(cache)
        )
        packed.model.double()  # in float32, sums in another order round an input up or down
        prefix = begin(packed, 60)
        together = transformers_likelihood.answer_nll(packed.model, made, 0, prefix, features)
        alone = [
            transformers_likelihood.answer_nll(packed.model, [one], 0, begin(packed, 60), features)[
                0
            ]
            for one in made
        ]
        assert together == pytest.approx(alone, rel=1e-6)
        assert together != pytest.approx(original, rel=1e-6)
        if cache is None or cache["bits"] == 8:
            assert together == pytest.approx(original, rel=0.2)


def test_only_language_layers_are_packed(tmp_path: Path) -> None:
    directory = tiny_vision_model(tmp_path / "model")
    checkpoint = store(directory, tmp_path / "packed", "--method", "rtn", "--bits", "4")
    record = json.loads((checkpoint / "quantization.json").read_text())
    names = [layer["name"] for layer in record["layers"]]
    assert len(names) == 14
    assert all("language_model" in name for name in names)
    packed, state = load(checkpoint), load(directory).model.state_dict()
    kept = {name for name in state if "vision_tower" in name or "projector" in name}
    assert len(kept) > 20
    found = packed.model.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in kept)
    assert packed.layers_quantized == 14
    processor = load_processor(checkpoint, packed.tokenizer)  # it comes with the checkpoint
    assert processor.image_seq_length == 4


def one_prompt(shown: Shown, row: dict[str, Any], limit: int | None = None) -> prompts.Prompt:
    loaded, processor, made = shown.loaded, shown.processor, shown.made
    return prompts.chat_prompt(
        *(loaded.tokenizer, TEMPLATE, row, [], "findings", limit),
        images=made[0].images,
        processor=processor,
    )


def test_prompts_that_cannot_be_shown_images(shown: Shown) -> None:
    rows, made = shown.rows, shown.made
    for text in ("see <start_of_image>", "see <image_soft_token>"):
        with pytest.raises(UserError, match=r"report r0: its prompt says \d times that an"):
            one_prompt(shown, rows[0] | {"indication": text})
    room = len(made[0].ids)
    assert one_prompt(shown, rows[0], room).ids == made[0].ids
    with pytest.raises(UserError, match=f"report r0: its prompt has {room} tokens with 1 images"):
        one_prompt(shown, rows[0], room - 1)


def test_the_hash_is_of_text_and_images(shown: Shown) -> None:
    loaded, made = shown.loaded, shown.made
    row = {"id": "a", "indication": "cough", "findings": ""}
    plain = prompts.chat_prompt(loaded.tokenizer, TEMPLATE, row, [], "findings")
    found = {plain.hash, *(prompt.hash for prompt in made)}
    assert len(found) == 6
    first = made[0].images[0]
    other = dataclasses.replace(first, sha256="0" * 64)
    assert dataclasses.replace(made[0], images=(other,)).hash not in found
    elsewhere = dataclasses.replace(first, path=Path("elsewhere"), report="b")
    assert dataclasses.replace(made[0], images=(elsewhere,)).hash == made[0].hash


def test_a_processor_in_the_hubs_older_layout(tmp_path: Path) -> None:
    """Image settings and chat template in files of their own, as Gemma 3 has them on the hub."""
    directory = tiny_vision_model(tmp_path / "model")
    whole = json.loads((directory / "processor_config.json").read_text())
    images = whole.pop("image_processor")
    images["image_processor_type"] = "Gemma3ImageProcessor"
    (directory / "preprocessor_config.json").write_text(json.dumps(images))
    kept = {name: whole[name] for name in ("image_seq_length", "processor_class")}
    (directory / "processor_config.json").write_text(json.dumps(kept))
    template = (directory / "chat_template.jinja").read_text()
    (directory / "chat_template.jinja").unlink()
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    tokenizer = load(directory).tokenizer
    processor = load_processor(directory, tokenizer)
    assert tokenizer.chat_template == template
    assert type(processor.image_processor).__name__ == "Gemma3ImageProcessorPil"
    assert processor.image_seq_length == 4
    assert processor.image_processor.size == {"height": 28, "width": 28}


def test_models_that_cannot_be_shown_images(tmp_path: Path) -> None:
    directory = tiny_vision_model(tmp_path / "model")
    tokenizer = load(directory).tokenizer
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(UserError, match=r"type 'llama', which is shown no images \(only 'gemma3'"):
        load_processor(directory, tokenizer)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template, which says where"):
        load_processor(directory, tokenizer)
    for name in ("processor_config.json", "preprocessor_config.json"):
        (directory / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="has no image processor that can be loaded"):
        load_processor(directory, tokenizer)
