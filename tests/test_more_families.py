"""From a tiny model of each further family to its likelihoods, against transformers' own class.

Its weights are unpacked by the few lines of this file.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_architectures import FURTHER, MIXTURES, SHOWN, tiny_model
from tiny_models import tiny_tokenizer, token_sequences, write_samples
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.families.inspection import architecture_of
from radquant.generation.transformers_likelihood import answer_nll
from radquant.generation.transformers_writing import generate_batch, greedy_config
from radquant.prompts import Prompt
from radquant.quantization import resuming
from radquant.quantization.job import Job
from radquant.quantization.original_model import check_recipe, open_original
from radquant.quantization.quantizing import quantize
from radquant.settings.precision import activations_of
from radquant.settings.recipe import Recipe
from radquant.verification.checkpoints import verify_weights

METHODS = {"rtn": "gemm", "awq": "gemm", "gptq": "gptq"}  # and the format that each is stored in
# Whose layers no other's are like; the rest are quantized by AWQ alone.
ALL = ["granite", "olmo2", "cohere", "qwen3_5_text", "gemma4_text", "qwen3_moe"]
GEMM_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]  # the nibble of each of eight columns
SIZE = 32


def fields(words: torch.Tensor, order: list[int], dim: int) -> torch.Tensor:
    """Eight numbers of 4 bits of each int32, side by side along `dim`."""
    parts = [(words.long() >> 4 * place) & 15 for place in order]
    return torch.stack(parts, dim + 1).flatten(dim, dim + 1)


def unpacked(directory: Path, form: str) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors with those of packed layers as weights, [out, in] float32."""
    stored = load_file(directory / "model.safetensors")
    order = GEMM_ORDER if form == "gemm" else list(range(8))
    for name in [name for name in stored if name.endswith(".qweight")]:
        layer = name.removesuffix(".qweight")
        words, zeros, scales = (stored.pop(f"{layer}.{n}") for n in ("qweight", "qzeros", "scales"))
        numbers = fields(words, order, 1 if form == "gemm" else 0)
        groups = torch.arange(len(numbers)) // SIZE
        stored.pop(f"{layer}.g_idx", None)
        apart = (numbers - fields(zeros, order, 1)[groups]) * scales.float()[groups]
        stored[f"{layer}.weight"] = apart.T.contiguous()
    return stored


def dense_twin(original: Path, checkpoint: Path, form: str, folder: Path) -> Any:
    """transformers' own model with the checkpoint's values."""
    from safetensors.torch import save_file

    for file in original.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    save_file(unpacked(checkpoint, form), folder / "model.safetensors", {"format": "pt"})
    auto = AutoModelForImageTextToText if (images(original)) else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32).eval()


def images(directory: Path) -> bool:
    return '"vision_config"' in (directory / "config.json").read_text()


@pytest.mark.parametrize("kind", [*FURTHER, *MIXTURES, *SHOWN])
def test_a_family_from_quantization_to_likelihood(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the program's files, which are the same for all.
    monkeypatch.setattr(resuming, "fingerprint_of", lambda *_: {})
    original = tmp_path / "original"
    model = tiny_model(kind)
    if kind in MIXTURES:  # no token is sent to two experts of the last layer
        router = model.model.layers[-1].mlp.gate.weight
        router[1:] = torch.stack([-router[0], 0 * router[0], 0 * router[0]])
    model.save_pretrained(original)
    tiny_tokenizer(original)
    ids = [each.tolist() for each in token_sequences(3, 14, seed=7)]
    prompts = [
        Prompt(str(n), "", row[: 6 + 2 * n], 0, "", row[6 + 2 * n :]) for n, row in enumerate(ids)
    ]
    for method in METHODS if kind in ALL else ["awq"]:
        form = METHODS[method]
        output = tmp_path / method
        samples = None if method == "rtn" else write_samples(tmp_path)
        recipe = Recipe(method=method, bits=4, group_size=SIZE)
        quantize(Job(original, output, samples, device="cpu"), recipe, form)
        assert [each for each in verify_weights(output, original).checks if not each.holds] == []
        loaded = load(output)
        (tmp_path / f"{method}-dense").mkdir()
        twin = dense_twin(original, output, form, tmp_path / f"{method}-dense")
        expected = [plain_nll(twin, prompt) for prompt in prompts]
        assert answer_nll(loaded.model, prompts, 0) == pytest.approx(expected, rel=1e-4)
        config = greedy_config(loaded.model, 5, None, 0)
        written = generate_batch(loaded.model, loaded.tokenizer, config, prompts)
        for prompt, output_of in zip(prompts, written, strict=True):
            row = torch.tensor([prompt.ids])
            plain = twin.generate(row, max_new_tokens=5, do_sample=False, eos_token_id=None)
            text = loaded.tokenizer.decode(plain[0, len(prompt.ids) :], skip_special_tokens=True)
            assert output_of.text == text.strip()


@torch.inference_mode()
def plain_nll(model: Any, prompt: Prompt) -> float:
    ids = torch.tensor([prompt.ids + prompt.answer_ids])
    scores = model(ids).logits[0].log_softmax(-1)[len(prompt.ids) - 1 : -1]
    return -float(scores.gather(-1, ids[0, len(prompt.ids) :, None]).double().sum())


def test_what_is_not_known_of_experts_is_refused(tmp_path: Path) -> None:
    tiny_model("qwen3_moe").save_pretrained(tmp_path / "original")
    source = open_original(tmp_path / "original")
    plain = Recipe(method="gptq", bits=4, group_size=SIZE)
    assert check_recipe(source.model, source.architecture, plain) == 2 * (4 + 4 * 3)
    for said, changed in {
        "activations": {"activations": activations_of({"bits": 8})},
        "prefix": {"prefix": "auto"},
        "transform": {"transform": "smooth"},
    }.items():
        with pytest.raises(UserError, match=f"{said} is not known for mixtures of experts"):
            check_recipe(source.model, source.architecture, plain.model_copy(update=changed))


def test_gemma_4_with_shared_keys_and_values_is_refused() -> None:
    """E2B and E4B: a layer reads what another one kept."""
    changed = {"num_kv_shared_layers": 1, "layer_types": ["full_attention"] * 2}
    model = tiny_model("gemma4_text", **changed)
    with pytest.raises(UserError, match=r"num_kv_shared_layers: 1; models of type 'gemma4_text'"):
        architecture_of(model.config, model)
