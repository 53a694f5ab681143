"""A packed checkpoint read by its files alone, into an ordinary model of transformers.

Rotations, ranges and prefix are written from their definitions. So only the unpacking of weights,
which has tests of its own, is shared with what this is held against.
"""

import dataclasses
import json
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from radquant.packed.formats import all_formats, settings_of, unpack
from radquant.prompts import Prompt
from radquant.runtime.hadamard import factors
from radquant.runtime.runtime_file import FILE
from radquant.settings.precision import KVCache

# Not the weight of FP8 layers: what is simulated here is stored in integers.
PACKED = {suffix for form in all_formats() for suffix in form.SUFFIXES} - {"weight"}


def matrix(n: int) -> Tensor:
    """The rotation of width n itself, [n, n] float32."""
    return reduce(torch.kron, factors(n), torch.ones(1, 1, dtype=torch.float64)).float()


@dataclasses.dataclass
class Simulation:
    """A checkpoint read by its files alone."""

    model: Any
    ids: list[int]  # the stored prefix
    states: dict[str, Tensor]
    kv_cache: KVCache | None
    rotated: bool

    def cache(self) -> DynamicCache:
        """With the stored prefix in it; keys and values that follow are rounded."""
        cache = DynamicCache(config=self.model.config)
        for layer in range(len(cache.layers)) if self.ids else ():
            cache.update(*(self.states[f"prefix.{layer}.{x}"] for x in ("key", "value")), layer)
        if self.kv_cache is not None:
            plain = cache.update

            def update(keys: Tensor, values: Tensor, *rest: Any, **more: Any) -> Any:
                basis = matrix(keys.shape[-1]) if self.rotated else torch.eye(keys.shape[-1])
                keys = fake_states(keys @ basis, self.kv_cache) @ basis.T
                return plain(keys, fake_states(values, self.kv_cache), *rest, **more)

            cache.update = update  # type: ignore[method-assign]
        return cache

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> Tensor:
        """Of a text, [tokens, vocabulary]; the first may be the prefix's last already."""
        if self.ids and ids[0] == self.ids[-1]:
            ids = ids[1:]
        out = self.model(torch.tensor([ids]), past_key_values=self.cache(), use_cache=True)
        found: Tensor = out.logits[0]
        return found

    def nll(self, prompt: Prompt) -> float:
        count = len(prompt.answer_ids)
        scores = self.logits(prompt.ids + prompt.answer_ids)[-count - 1 : -1].log_softmax(-1)
        return -float(scores.gather(-1, torch.tensor(prompt.answer_ids)[:, None]).sum())

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """Token by token, each text anew."""
        new: list[int] = []
        for _ in range(count):
            new.append(int(self.logits(ids + new)[-1].argmax()))
        return new


def fake_states(x: Tensor, settings: KVCache) -> Tensor:
    """Asymmetric and by head, as the tests below have it."""
    assert (settings.granularity, settings.symmetric) == ("head", False)
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / (2**settings.bits - 1)
    zero = (-low / scale).round()
    return ((x / scale + zero).round() - zero) * scale


def fake_input(x: Tensor, scale: Tensor, zero: Tensor, settings: dict[str, Any]) -> Tensor:
    groups = x.unflatten(-1, (len(scale), -1))
    scale, zero = scale[:, None], zero[:, None]
    levels = 2 ** settings["bits"]
    low, high = (1 - levels // 2, levels // 2 - 1) if settings["symmetric"] else (0, levels - 1)
    integers = ((groups / scale).round() + zero).clamp(low, high)
    return ((integers - zero) * scale).flatten(-2)


def simulate(directory: Path, kv_cache: KVCache | None = None) -> Simulation:
    """The checkpoint in `directory`, with its static ranges if it has any."""
    about = json.loads((directory / "config.json").read_text()).pop("quantization_config")
    weights = about.get("weights", about)
    stored = load_file(directory / "model.safetensors")
    extra, settings = {}, None
    if (directory / FILE).is_file():
        extra = load_file(directory / FILE)
        with safe_open(directory / FILE, "pt") as file:
            settings = json.loads(file.metadata()["activations"])
    config = AutoConfig.from_pretrained(directory)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config).eval()
    state, layers = {}, {}
    for name, tensor in stored.items():
        layer, _, suffix = name.rpartition(".")
        if suffix in PACKED:
            layers.setdefault(layer, {})[suffix] = tensor
        else:
            state[name] = tensor
    for name, tensors in layers.items():
        state[f"{name}.weight"] = unpack(tensors, settings_of(weights)).dequantize()
    missing = model.load_state_dict(state)
    assert not missing.missing_keys

    def input_of(name: str) -> Callable[..., Any]:
        turned = name.endswith(tuple(about.get("online_hadamard", ["none"])))

        def hook(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            x = args[0] @ matrix(args[0].shape[-1]) if turned else args[0]
            if f"{name}.input_scale" in extra:
                ranges = extra[f"{name}.input_scale"], extra[f"{name}.input_zero_point"]
                x = fake_input(x, *ranges, settings)
            return (x,)

        return hook

    for name in layers:
        model.get_submodule(name).register_forward_pre_hook(input_of(name))
    ids = extra["prefix.ids"].tolist() if "prefix.ids" in extra else []
    return Simulation(model, ids, extra, kv_cache, bool(about.get("rotate_keys")))
