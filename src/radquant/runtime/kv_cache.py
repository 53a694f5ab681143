"""Keys and values rounded to low bits when they enter the cache: simulated, for all attention.

Attention then reads rounded keys and values only, also those of the tokens of the same call. So the
prompt, a text that is scored in one pass, and tokens generated one by one all see the same cache.
It is what the perplexities of QuaRot (Ashkboos et al. 2024) and SpinQuant (Liu et al. 2024)
measure. Methods that keep the latest tokens in full precision lose less, as KIVI (Liu et al. 2024)
does.

Each token is rounded by itself, with a scale taken from its own states. What else is in a batch or
in a call changes nothing. Values are rounded to the grid and stay floating-point numbers, so memory
and speed say nothing; scales are float32, where engines store half precision.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from radquant.errors import UserError
from radquant.packed.types.integer import round_to_integers
from radquant.runtime.float_values import round_values
from radquant.runtime.hadamard import rotate as hadamard
from radquant.settings.precision import FP8, GROUP, INT, TENSOR, TOKEN, KVCache

ONE = (1.0, 1.0)


def quantize_states(x: Tensor, settings: KVCache, fixed: float = 1.0) -> Tensor:
    """Round keys or values [batch, heads, tokens, head_dim] to their grid, each token by itself.

    Symmetric: 2·(2^(bits−1) − 1) + 1 levels about 0, up to the largest magnitude. Asymmetric:
    2^bits levels with an integer zero, from the least to the greatest value; the range always
    holds 0. Floating-point types: `runtime.float_values`; NVFP4's global scale is 1. Computes in
    float32; returns x's dtype.

    fixed: the scale of granularity tensor.
    """
    states = x.float()
    if settings.granularity == GROUP:
        if x.shape[-1] % settings.group_size:
            raise UserError(
                f"kv_cache: group_size {settings.group_size} does not divide the width of a head, "
                f"{x.shape[-1]}; use a divisor of it, or granularity head"
            )
        states = states.unflatten(-1, (-1, settings.group_size))
    elif settings.granularity == TOKEN:
        states = states.transpose(1, 2).flatten(2)  # [batch, tokens, heads · head_dim]
    if settings.type == INT:
        rounded = round_to_integers(states, *ranges(states, settings), settings.bits)
    else:
        shared = states.new_tensor(fixed if settings.granularity == TENSOR else 1.0)
        by_itself = settings.type == FP8 and settings.granularity != TENSOR
        rounded = round_values(states, settings.type, None if by_itself else shared)
    if settings.granularity == TOKEN:
        rounded = rounded.unflatten(-1, (x.shape[1], x.shape[3])).transpose(1, 2)
    return rounded.reshape(x.shape).to(x.dtype)


def ranges(states: Tensor, settings: KVCache) -> tuple[Tensor, Tensor]:
    """Scale and zero of what shares them, [..., group] float32 -> two [...] float32."""
    largest = 2**settings.bits - 1
    if settings.symmetric:
        half = 2 ** (settings.bits - 1)
        scale = states.abs().amax(-1).clamp(min=1e-12) / (half - 1)
        return scale, scale.new_full(scale.shape, half)
    low, high = states.amin(-1).clamp(max=0), states.amax(-1).clamp(min=0)
    scale = (high - low).clamp(min=1e-12) / largest
    return scale, (-low / scale).round()


def round_pair(
    keys: Tensor,
    values: Tensor,
    settings: KVCache,
    rotate: bool,
    fixed: tuple[float, float] = ONE,
) -> list[Tensor]:
    """Keys and values as the cache holds them; keys are rounded in the rotated basis if asked."""
    of_keys, of_values = fixed
    rounded = quantize_states(values, settings, of_values)
    if rotate:
        turned = quantize_states(hadamard(keys.float()), settings, of_keys)
        return [hadamard(turned, inverse=True).to(keys.dtype), rounded]
    return [quantize_states(keys, settings, of_keys), rounded]


class RoundedLayer(DynamicLayer):
    """The cache of a layer that attends to all positions."""

    def __init__(
        self, settings: KVCache, rotate: bool, fixed: tuple[float, float] = ONE, **window: int
    ) -> None:
        super().__init__(**window)
        self.settings, self.rotate, self.fixed = settings, rotate, fixed

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        pair = round_pair(key_states, value_states, self.settings, self.rotate, self.fixed)
        return super().update(*pair, *args, **kwargs)

    def store(self, keys: Tensor, values: Tensor) -> None:
        """Append keys and values as they are."""
        super().update(keys, values)


class RoundedSlidingLayer(RoundedLayer, DynamicSlidingWindowLayer):
    """The cache of a layer that attends to the last positions only, `sliding_window` of them."""


def new_cache(
    config: Any,
    settings: KVCache | None,
    rotate: bool = False,
    fixed: Mapping[int, tuple[float, float]] | None = None,
) -> DynamicCache:
    """An empty cache for a model of this transformers `config`; plain where settings are None.

    `rotate` turns each head of the keys by a Hadamard matrix after the rotary embedding, rounds
    them, and turns them back. That is the same function as turning queries and keys (R3 of QuaRot
    and SpinQuant), because the matrix is orthogonal. Values are rounded as they come: what turns
    them can be folded into the weights. fixed: the scales of keys and values by layer, of
    granularity tensor; 1 where there is none.

    Raises UserError where a layer keeps other states than keys and values of its own.
    """
    cache = DynamicCache(config=config)
    if settings is None:
        return cache
    cache.layers = [
        rounded_layer(layer, config, settings, rotate, (fixed or {}).get(number, ONE))
        for number, layer in enumerate(cache.layers)
    ]
    return cache


def rounded_layer(
    layer: Any, config: Any, settings: KVCache, rotate: bool, fixed: tuple[float, float]
) -> Any:
    # The types are compared exactly, as subclasses keep more than keys and values.
    if type(layer) is DynamicLayer:
        return RoundedLayer(settings, rotate, fixed)
    if type(layer) is DynamicSlidingWindowLayer:
        window = layer.sliding_window
        return RoundedSlidingLayer(settings, rotate, fixed, sliding_window=window)
    raise UserError(
        f"a layer of model type {config.get_text_config().model_type!r} keeps other states than "
        f"its own keys and values ({type(layer).__name__}), which cannot be quantized; leave "
        "kv_cache out"
    )


def start_with(cache: DynamicCache, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Put the keys and values of a prefix, as they are, at the start of an empty `cache`.

    One tensor [1, kv_heads, prefix, head_dim] for each layer, in the model's dtype and on its
    device. Keys have their rotary embedding, for positions from 0. They count as ordinary
    positions: the cache's length and the attention mask include them, and the tokens behind them
    start at position `prefix`. In a layer with a sliding window they slide out of it like any other
    token. A prefix longer than the window is cut to its last tokens. For a larger batch follow with
    `cache.batch_repeat_interleave(batch)`.
    """
    assert cache.get_seq_length() == 0
    for layer, of_keys, of_values in zip(cache.layers, keys, values, strict=True):
        if isinstance(layer, RoundedLayer):
            layer.store(of_keys, of_values)
        else:
            layer.update(of_keys, of_values)
