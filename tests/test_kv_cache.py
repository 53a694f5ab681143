"""A rounded KV cache: against plain Python, in one pass and by token, with a stored prefix."""

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_architectures import tiny_model
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from radquant.errors import UserError
from radquant.generation.batching import pad_left
from radquant.generation.prefix import Prefix
from radquant.runtime.kv_cache import (
    RoundedLayer,
    RoundedSlidingLayer,
    new_cache,
    quantize_states,
    round_pair,
    start_with,
)
from radquant.settings.precision import CACHE_GRANULARITIES, KVCache

KINDS = ["llama", "qwen3", "gemma3_text"]  # the last one has a layer with a window of 8
SETTINGS = [
    (KVCache(bits=bits, granularity=granularity, group_size=8, symmetric=symmetric), rotate)
    for (bits, granularity, symmetric), rotate in zip(
        itertools.product((4, 8), CACHE_GRANULARITIES, (True, False)),
        itertools.cycle((True, False, False, True)),
        strict=False,
    )
]
SETTINGS += [(KVCache(type="fp8", granularity="tensor"), False), (KVCache(type="fp8"), True)]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param)


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.inference_mode():
        yield


def tokens(rows: int, length: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 49, (rows, length), generator=generator)


def logits(model: Any, ids: torch.Tensor, cache: Any, **options: Any) -> torch.Tensor:
    found: torch.Tensor = model(
        input_ids=ids, past_key_values=cache, use_cache=True, **options
    ).logits
    return found


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def reference(x: np.ndarray, kv: KVCache) -> np.ndarray:
    """The same rounding, one scale at a time."""
    found = np.empty_like(x)
    rows, heads, length, width = x.shape
    for row, place in itertools.product(range(rows), range(length)):
        if kv.granularity == "token":
            parts = [(slice(0, heads), slice(0, width))]
        else:
            size = width if kv.granularity == "head" else kv.group_size
            starts = range(0, width, size)
            parts = [(slice(h, h + 1), slice(s, s + size)) for h in range(heads) for s in starts]
        for head, channels in parts:
            part = x[row, head, place, channels]
            if kv.symmetric:
                most = 2 ** (kv.bits - 1) - 1
                step = np.float32(max(np.abs(part).max(), np.float32(1e-12)) / np.float32(most))
                new = np.clip(np.round(part / step), -most, most) * step
            else:
                low, high = min(part.min(), np.float32(0)), max(part.max(), np.float32(0))
                most = 2**kv.bits - 1
                step = max(high - low, np.float32(1e-12)) / np.float32(most)
                zero = np.round(-low / step)
                new = (np.clip(np.round(part / step) + zero, 0, most) - zero) * step
            found[row, head, place, channels] = new
    return found


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from([kv for kv, _ in SETTINGS if kv.type == "int"]),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 4), st.sampled_from([8, 24])),
    st.integers(0, 2**31),
    st.sampled_from([-3.0, 0.0, 0.5, 100.0]),
    st.sampled_from([0.0, 1e-3, 1.0, 1e4]),
)
def test_rounding_against_plain_python(
    kv: KVCache, shape: tuple[int, ...], seed: int, offset: float, size: float
) -> None:
    generator = np.random.default_rng(seed)
    x = ((generator.standard_normal(shape) + offset) * size).astype(np.float32)
    found = quantize_states(torch.from_numpy(x.copy()), kv).numpy()
    np.testing.assert_allclose(found, reference(x, kv), rtol=1e-6, atol=0)


def test_closed_forms() -> None:
    x = torch.tensor([7.0, 3.4, -0.4, -6.6]).reshape(1, 1, 1, 4)
    expected = torch.tensor([7.0, 3.0, 0.0, -7.0]).reshape(1, 1, 1, 4)
    assert torch.equal(quantize_states(x, KVCache(bits=4, symmetric=True)), expected)
    x = torch.tensor([15.0, 3.4, 5.0, 9.7]).reshape(1, 1, 1, 4)  # from 0, although 3.4 is the least
    expected = torch.tensor([15.0, 3.0, 5.0, 10.0]).reshape(1, 1, 1, 4)
    assert torch.equal(quantize_states(x, KVCache(bits=4)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(2, 2, 5, 16).to(dtype)
    for kv, _ in SETTINGS:
        found = quantize_states(x, kv)
        assert found.dtype == dtype
        assert torch.equal(found, quantize_states(x.float(), kv).to(dtype))
        keys, values = round_pair(x, x, kv, rotate=True)
        assert torch.equal(keys, round_pair(x.float(), x, kv, rotate=True)[0].to(dtype))
        assert torch.equal(values, found)


def test_groups_must_fit_a_head() -> None:
    with pytest.raises(UserError, match="group_size 64 does not divide the width of a head, 80"):
        quantize_states(
            torch.ones(1, 1, 1, 80), KVCache(bits=4, granularity="group", group_size=64)
        )


@pytest.mark.parametrize("rotate", [False, True])
def test_eight_bits_are_close_and_four_are_not(model: Any, rotate: bool) -> None:
    ids = tokens(4, 24)
    plain = logits(model, ids, new_cache(model.config, None))
    torch.testing.assert_close(plain, model(input_ids=ids, use_cache=False).logits)
    for granularity in CACHE_GRANULARITIES:
        error = {
            bits: distance(
                logits(
                    model,
                    ids,
                    new_cache(
                        model.config,
                        KVCache(bits=bits, granularity=granularity, group_size=16),
                        rotate,
                    ),
                ),
                plain,
            )
            for bits in (8, 4)
        }
        assert 1e-4 < error[8] < 0.06
        assert 0.1 < error[4] < 1
        assert error[4] > 5 * error[8]


@pytest.mark.parametrize(("kv", "rotate"), SETTINGS)
def test_one_pass_equals_token_by_token(model: Any, kv: KVCache, rotate: bool) -> None:
    ids = tokens(3, 20)
    whole = logits(model, ids, new_cache(model.config, kv, rotate))
    cache = new_cache(model.config, kv, rotate)
    steps = [logits(model, ids[:, :7], cache)]
    steps += [logits(model, ids[:, place : place + 1], cache) for place in range(7, 20)]
    assert cache.get_seq_length() == 20
    error = distance(whole, logits(model, ids, new_cache(model.config, None)))
    # Sums in another order may carry a state over to the next level, here and there.
    assert distance(torch.cat(steps, dim=1), whole) < error / 20


@pytest.mark.parametrize(("kv", "rotate"), SETTINGS)
def test_left_padding_changes_nothing(model: Any, kv: KVCache, rotate: bool) -> None:
    short, long = tokens(1, 6), tokens(1, 9, seed=6)
    rows = [short[0].tolist(), long[0].tolist()]
    ids, mask = pad_left(rows, 0, 0, torch.device("cpu"))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = new_cache(model.config, kv, rotate)
    together = logits(model, ids, cache, attention_mask=mask, position_ids=positions)
    for row, alone in enumerate((short, long)):
        expected = logits(model, alone, new_cache(model.config, kv, rotate))
        plain = logits(model, alone, new_cache(model.config, None))
        found = together[row : row + 1, 9 - alone.shape[1] :]
        assert distance(found, expected) < distance(expected, plain) / 20


@pytest.mark.parametrize(("kv", "rotate"), [SETTINGS[0], SETTINGS[9], (None, False)])
def test_generating_equals_scoring_what_was_written(
    model: Any, kv: KVCache | None, rotate: bool
) -> None:
    ids = tokens(2, 6)
    config = transformers.GenerationConfig(
        max_new_tokens=10, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    model.generation_config = config
    written = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=config,
        past_key_values=new_cache(model.config, kv, rotate),
    )
    assert written.shape == (2, 16)
    scores = logits(model, written, new_cache(model.config, kv, rotate))
    assert torch.equal(scores[:, 5:-1].argmax(-1), written[:, 6:])


def with_outlier_keys(factor: float) -> Any:
    """The same function as the tiny model's, with two key channels `factor` times as large.

    The rotary embedding turns channels c and c + head_dim / 2 into each other, so both are.
    """
    model = tiny_model("qwen3")
    for layer in model.model.layers:
        layer.self_attn.k_norm.weight[[3, 3 + 16]] *= factor
        layer.self_attn.q_norm.weight[[3, 3 + 16]] /= factor
    return model


@pytest.mark.parametrize("symmetric", [False, True])
def test_rotation_helps_keys_with_outlier_channels(symmetric: bool) -> None:
    model, ids = with_outlier_keys(20), tokens(4, 24)
    plain = logits(model, ids, None)
    torch.testing.assert_close(plain, logits(tiny_model("qwen3"), ids, None), rtol=1e-4, atol=1e-3)
    kv = KVCache(bits=4, granularity="head", symmetric=symmetric)
    straight, rotated = (
        distance(logits(model, ids, new_cache(model.config, kv, rotate)), plain)
        for rotate in (False, True)
    )
    assert rotated < 0.75 * straight


@pytest.mark.parametrize("width", [32, 80])  # the matrix of order 80 is not symmetric
def test_rotation_is_of_keys_alone_and_is_turned_back(width: int) -> None:
    keys = torch.randn(2, 2, 5, width, generator=torch.Generator().manual_seed(1))
    keys[..., 7] *= 30
    kv = KVCache(bits=4, granularity="head")
    straight, _ = round_pair(keys, keys, kv, rotate=False)
    rotated, values = round_pair(keys, keys, kv, rotate=True)
    assert torch.equal(values, straight)
    others = [channel for channel in range(width) if channel != 7]
    # The outlier takes all levels of its head for itself, and the others' information is lost.
    assert distance(straight[..., others], keys[..., others]) > 0.5
    assert distance(rotated[..., others], keys[..., others]) < 0.6 * distance(
        straight[..., others], keys[..., others]
    )
    fine, _ = round_pair(keys, keys, KVCache(bits=8, granularity="head"), rotate=True)
    assert distance(fine, keys) < 0.01


def test_layers_are_of_the_same_kinds_as_in_a_plain_cache(model: Any) -> None:
    plain = new_cache(model.config, None)
    rounded = new_cache(model.config, KVCache(bits=8))
    assert {type(layer) for layer in plain.layers} <= {DynamicLayer, DynamicSlidingWindowLayer}
    assert type(rounded) is DynamicCache
    kinds = {DynamicLayer: RoundedLayer, DynamicSlidingWindowLayer: RoundedSlidingLayer}
    assert [kinds[type(layer)] for layer in plain.layers] == [type(each) for each in rounded.layers]
    assert rounded.is_sliding == plain.is_sliding
    windows = [getattr(layer, "sliding_window", None) for layer in plain.layers]
    assert [getattr(layer, "sliding_window", None) for layer in rounded.layers] == windows


@pytest.mark.parametrize("name", ["MambaConfig", "JambaConfig", "Gemma3nTextConfig"])
def test_other_states_cannot_be_rounded(name: str) -> None:
    config = getattr(transformers, name)()
    assert new_cache(config, None).layers
    with pytest.raises(UserError, match=f"{config.model_type}.*cannot be quantized"):
        new_cache(config, KVCache(bits=8))


def prefix_states(model: Any, ids: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Keys and values of all of ids [1, prefix], from layers without a window."""
    cache = DynamicCache()
    logits(model, ids, cache)
    return [each.keys for each in cache.layers], [each.values for each in cache.layers]


@pytest.mark.parametrize("length", [1, 3, 7, 8, 12])  # shorter and longer than the window of 8
def test_a_stored_prefix_stands_for_its_tokens(model: Any, length: int) -> None:
    prefix, rest = tokens(1, length), tokens(3, 11, seed=6)
    cache = new_cache(model.config, None)
    start_with(cache, *prefix_states(model, prefix))
    assert cache.get_seq_length() == length
    kept = copy.deepcopy(cache)
    cache.batch_repeat_interleave(3)
    whole = torch.cat([prefix.expand(3, -1), rest], dim=1)
    expected = model(input_ids=whole, use_cache=False).logits[:, length:]
    torch.testing.assert_close(logits(model, rest, cache), expected, rtol=1e-4, atol=1e-3)
    assert kept.get_seq_length() == length
    assert {layer.keys.shape[0] for layer in kept.layers} == {1}

    config = transformers.GenerationConfig(
        max_new_tokens=10, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    model.generation_config = config
    options = {"attention_mask": torch.ones_like(whole), "generation_config": config}
    expected = model.generate(input_ids=whole, **options)
    kept.batch_repeat_interleave(3)
    found = model.generate(input_ids=whole, past_key_values=kept, **options)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("kv", "rotate"), [SETTINGS[0], SETTINGS[1], SETTINGS[3]])
def test_a_stored_prefix_stays_as_it_is(model: Any, kv: KVCache, rotate: bool) -> None:
    keys, values = prefix_states(model, tokens(1, 3))
    stored = new_cache(model.config, kv, rotate)
    start_with(stored, keys, values)
    cache = Prefix(3, stored).expanded(2)
    rest = tokens(2, 4, seed=6)
    whole = logits(model, rest, cache)
    assert cache.get_seq_length() == 7  # with the prefix just what the window holds
    assert stored.get_seq_length() == 3
    for layer, of_keys, of_values in zip(cache.layers, keys, values, strict=True):
        assert torch.equal(layer.keys[:, :, :3], of_keys.expand(2, -1, -1, -1))
        assert torch.equal(layer.values[:, :, :3], of_values.expand(2, -1, -1, -1))
        new = layer.values[:, :, 3:]  # the states behind it are on a grid
        levels = [len(head.unique()) for token in new.unbind(2) for head in token.flatten(0, 1)]
        assert max(levels) <= 2**kv.bits
    again = Prefix(3, stored).expanded(2)
    steps = [logits(model, rest[:, place : place + 1], again) for place in range(4)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("kv", "rotate"), [(None, False), SETTINGS[9]])
def test_a_stored_prefix_slides_out_of_a_window(kv: KVCache | None, rotate: bool) -> None:
    model = tiny_model("mistral")  # windows of 8 everywhere
    keys, values = prefix_states(model, tokens(1, 3))
    rest = tokens(1, 30, seed=6)
    found = []
    for factor in (1, 100):  # another prefix
        cache = new_cache(model.config, kv, rotate)
        start_with(cache, [factor * each for each in keys], [factor * each for each in values])
        found.append(logits(model, rest, cache))
    # Two layers reach back twice the window.
    assert distance(found[1][:, :5], found[0][:, :5]) > 0.1
    assert torch.equal(found[1][:, 15:], found[0][:, 15:])
    assert all(layer.keys.shape[2] == 7 for layer in cache.layers)
    assert cache.get_seq_length() == 33
