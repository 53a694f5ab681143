"""What calibration looks at: the inputs of a decoder layer's linear layers, exact and rounded."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from radquant.errors import UserError
from radquant.families.architectures import Architecture, Group
from radquant.families.inspection import linear_of
from radquant.quantization.hidden_states import Hidden, append, run_layer
from radquant.quantization.onednn import rounded_products
from radquant.runtime.activations import (
    Grid,
    by_channel_group,
    grid_of_range,
    quantize_activations,
    round_to,
)
from radquant.runtime.float_values import static_scale
from radquant.runtime.layer_names import ends_in
from radquant.settings.precision import GROUP, INT, STATIC, Activations

# Tokens whose inputs are kept whole, in whole sequences. How they are rounded depends on the scale
# that is searched, and a Gram matrix cannot tell that.
SAMPLE_TOKENS = 1024
# Shares of the range that a static range may keep: 1, 0.9, 0.81 … 0.04. One outlying value in a
# thousand tokens can be a thousand times the rest.
RANGE_STEPS, RANGE_STEP = 31, 0.9
GRAM_ROWS = 256  # of a Gram matrix that are added to at a time
# Tokens that are added to a Gram matrix together. With fewer, reading the matrix takes longer than
# adding, and the longer the wider it is. Inputs of many experts wait at once, and are not wide.
GRAM_TOKENS, WIDE = 512, 8192


def add_products(gram: Tensor, x: Tensor) -> None:
    """Add xᵀ·x, [in, in], of x, [tokens, in], to `gram`.

    Blocks of rows are added as far as the diagonal alone, which takes little more than half the
    time. `complete` does the rest, once for all tokens. A channel's tokens are laid side by side
    first: products are faster so.
    """
    rows = x.T.contiguous()
    for start in range(0, len(gram), GRAM_ROWS):
        end = min(start + GRAM_ROWS, len(gram))
        gram[start:end, :end] += nn.functional.linear(rows[start:end], rows[:end])


def complete(gram: Tensor) -> None:
    """Fill in what `add_products` leaves out, from the other side of the diagonal."""
    for start in range(GRAM_ROWS, len(gram), GRAM_ROWS):
        end = start + GRAM_ROWS
        gram[:start, start:end] = gram[start:end, :start].T


@dataclass
class InputStatistics:
    """What is kept of one group's input over the calibration tokens."""

    gram: Tensor  # [in, in] float32: sum over tokens of x·xᵀ; to be completed behind the last
    magnitude: Tensor  # [in] float32: sum over tokens of |x|
    largest: Tensor  # [in] float32: largest |x|
    tokens: float = 0  # in all, each by its weight
    sample: list[Tensor] = field(default_factory=list)  # some sequences' inputs, [tokens, in] each

    @classmethod
    def empty(cls, channels: int, device: torch.device) -> "InputStatistics":
        return cls(
            torch.zeros(channels, channels, device=device),
            torch.zeros(channels, device=device),
            torch.zeros(channels, device=device),
        )

    def add(self, x: Tensor, keep: bool = False, weights: Tensor | None = None) -> None:
        """Accumulate x, [1, tokens, in]; `keep` it whole as well. weights: of tokens, [tokens]."""
        x = x.flatten(0, -2).float()
        # Both factors get the root of a weight: however they are rounded, they stay the same.
        add_products(self.gram, x if weights is None else x * weights.sqrt()[:, None])
        magnitude = x.abs() if weights is None else x.abs() * weights[:, None]
        self.magnitude += magnitude.sum(0)
        if len(x):
            self.largest = torch.maximum(self.largest, x.abs().amax(0))
        self.tokens += len(x) if weights is None else float(weights.sum())
        if keep:
            self.sample.append(x.clone())

    def sums(self) -> tuple[Tensor, ...]:
        """What is not finite if any of the inputs, or of the statistics, is not.

        The diagonal stands for the Gram matrix, whose other values it bounds.
        """
        return self.gram.diagonal(), self.magnitude, self.largest

    def divide_channels(self, scale: Tensor) -> None:
        """Turn the statistics of x into those of x / scale, [in]."""
        self.gram /= scale[:, None]
        self.gram /= scale
        self.magnitude /= scale
        self.largest /= scale
        self.sample = [x / scale for x in self.sample]


@dataclass
class Waiting:
    """Inputs of one group, of several short sequences, that are added to its statistics at once."""

    statistics: InputStatistics
    inputs: list[Tensor] = field(default_factory=list)  # [tokens, in] each
    weights: list[Tensor | None] = field(default_factory=list)  # as `InputStatistics.add` has them

    def take(self, x: Tensor, keep: bool, weights: Tensor | None) -> None:
        """Take x, [1, tokens, in], as `InputStatistics.add` does; it may be changed afterwards."""
        own = x.flatten(0, -2).float().clone()
        self.inputs.append(own)
        self.weights.append(weights)
        if keep:
            self.statistics.sample.append(own)
        if sum(map(len, self.inputs)) >= GRAM_TOKENS * (2 if own.shape[1] >= WIDE else 1):
            self.add()

    def add(self) -> None:
        """Add what waits."""
        if not self.inputs:
            return
        weights = None
        if any(each is not None for each in self.weights):
            pairs = zip(self.inputs, self.weights, strict=True)
            weights = torch.cat([x.new_ones(len(x)) if w is None else w for x, w in pairs])
        joined, self.inputs, self.weights = torch.cat(self.inputs), [], []
        self.statistics.add(joined[None], weights=weights)


@dataclass
class RoundedStatistics:
    """Statistics of a group's rounded input x̂ beside the exact one."""

    gram: Tensor  # [in, in] float32: sum over tokens of x̂·x̂ᵀ
    cross: Tensor  # [in, in] float32: sum over tokens of x·x̂ᵀ

    def sums(self) -> tuple[Tensor, ...]:
        """What is not finite if any of the inputs, or of the statistics, is not."""
        return self.gram.diagonal(), self.cross.diagonal()


@dataclass(frozen=True)
class Inputs:
    """What a decoder layer gets in calibration."""

    hidden: Hidden
    arguments: list[dict[str, Any]]  # keyword arguments of each sequence
    prefix: int  # tokens at the start of each sequence that no statistics count
    device: torch.device
    # What each token of each sequence counts for, [tokens] float32; None where all count alike.
    weights: Sequence[Tensor | None] = ()

    def counted(self, index: int) -> Tensor | None:
        """The weights of a sequence's tokens behind the prefix."""
        weights = self.weights[index] if self.weights else None
        return None if weights is None else weights[self.prefix :].to(self.device)

    def run(self, layer: nn.Module, index: int) -> Tensor:
        return run_layer(layer, self.hidden.read(index, self.device), self.arguments[index])

    def sampled(self) -> set[int]:
        """Sequences of about SAMPLE_TOKENS tokens together, evenly spaced."""
        counted = [i for i, n in enumerate(self.hidden.lengths) if n > self.prefix]
        tokens = sum(self.hidden.lengths[i] - self.prefix for i in counted)
        count = max(1, min(len(counted), round(len(counted) * SAMPLE_TOKENS / max(tokens, 1))))
        return {counted[place * len(counted) // count] for place in range(count)}


def activations_for(group: Group, settings: Activations | None) -> Activations | None:
    """How a group's input is rounded: None if it is not.

    Raises UserError if that differs between layers that read the same input.
    """
    if settings is None:
        return None
    skipped = [ends_in(name, settings.skip) for name in group.linears]
    if any(skipped) != all(skipped):
        raise UserError(
            f"activations: skip names some of {', '.join(group.linears)} but not all; they read "
            "the same input"
        )
    return None if all(skipped) else settings


def collect_statistics(
    layer: nn.Module,
    architecture: Architecture,
    inputs: Inputs,
    outputs: Hidden,
    keep: bool,
    exact: int | None = None,
) -> list[InputStatistics]:
    """Run every sequence through `layer`: the statistics of each group's input, outputs to disk.

    keep: whether some sequences' inputs are kept whole. exact: how many sequences come first whose
    products must be those of float32; the others' may be `rounded_products`. None: all.
    """
    groups: list[Waiting] = []
    sampled = inputs.sampled() if keep else set()
    kept, weights = False, None
    with ExitStack() as stack:
        for group in architecture.groups:
            linear = linear_of(layer, group.linears[0])
            waiting = Waiting(InputStatistics.empty(linear.in_features, inputs.device))
            groups.append(waiting)

            def observe(_: Any, args: Any, waiting: Waiting = waiting) -> None:
                waiting.take(args[0][:, inputs.prefix :], kept, weights)

            handle = linear.register_forward_pre_hook(observe)
            stack.callback(handle.remove)
        with outputs.writing() as file:
            for index in range(len(inputs.arguments)):
                kept, weights = index in sampled, inputs.counted(index)
                with rounded_products(exact is not None and index >= exact):
                    append(file, inputs.run(layer, index))
    for waiting in groups:
        waiting.add()
        complete(waiting.statistics.gram)
    return [waiting.statistics for waiting in groups]


def place_of_broken(layer: nn.Module, linear: str, inputs: Inputs) -> str:
    """In which sample, and at which of its tokens, the input of a linear layer is no number.

    In words that follow others; there are none where only sums over the samples overflow.
    """
    found: list[Tensor] = []
    handle = linear_of(layer, linear).register_forward_pre_hook(
        lambda _, args: found.append(torch.isfinite(args[0][0]).all(-1))
    )
    try:
        for index in range(len(inputs.arguments)):
            found.clear()
            inputs.run(layer, index)
            if found and not found[0].all():
                number = index if inputs.prefix else index + 1  # the prefix itself comes first
                token = int(found[0].int().argmin()) + 1
                return f" (first in sample {number}, token {token})"
    finally:
        handle.remove()
    return ""


def collect_rounded(
    layer: nn.Module,
    architecture: Architecture,
    inputs: Inputs,
    settings: Activations,
    ranges: Sequence[Grid | None],
) -> list[RoundedStatistics | None]:
    """Run every sequence through `layer` once more: each group's rounded input beside the exact.

    The layer itself goes on with the exact one. ranges: each group's static range. None for a
    group that is not rounded.
    """
    statistics: list[RoundedStatistics | None] = []
    weights: Tensor | None = None
    with ExitStack() as stack:
        for group, static in zip(architecture.groups, ranges, strict=True):
            chosen = activations_for(group, settings)
            if chosen is None:
                statistics.append(None)
                continue
            linear = linear_of(layer, group.linears[0])
            width, device = linear.in_features, inputs.device
            of_group = RoundedStatistics(
                torch.zeros(width, width, device=device), torch.zeros(width, width, device=device)
            )
            statistics.append(of_group)

            def observe(
                _: Any, args: Any, s: RoundedStatistics = of_group, grid: Grid | None = static
            ) -> None:
                x = args[0][:, inputs.prefix :].float()
                if not x.shape[1]:
                    return
                rounded = quantize_activations(x, settings, static=grid).flatten(0, -2)
                root = rounded.new_ones(1) if weights is None else weights.sqrt()[:, None]
                add_products(s.gram, rounded * root)
                s.cross.addmm_((x.flatten(0, -2) * root).T, rounded * root)

            handle = linear.register_forward_pre_hook(observe)
            stack.callback(handle.remove)
        for index in range(len(inputs.arguments)):
            weights = inputs.counted(index)
            inputs.run(layer, index)
    for found in statistics:
        if found is not None:
            complete(found.gram)
    return statistics


def best_weights(weight: Tensor, rounded: RoundedStatistics, damp_percent: float) -> Tensor:
    """The weights that make the most of a rounded input, [out, in] float32.

    They minimize ‖Ŵ·X̂ − W·X‖² + λ·‖Ŵ − W‖². Weights that are then rounded beside them for the Gram
    matrix X̂·X̂ᵀ make up for what rounding the inputs does on average. λ is `damp_percent` of the
    mean diagonal of X̂·X̂ᵀ, as in GPTQ. Of inputs that are all zero nothing can be made.
    """
    if not rounded.gram.any():
        return weight
    damping = damp_percent * rounded.gram.diagonal().double().mean().float()
    matrix = rounded.gram.clone()
    matrix.diagonal().add_(damping)
    product = weight @ rounded.cross + damping * weight
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info):
        raise UserError(
            "the Gram matrix of a linear layer's rounded inputs is not positive definite; raise "
            "damp_percent"
        )
    return torch.cholesky_solve(product.T, factor).T


def rounded_error(
    weight: Tensor, evaluated: Tensor, exact: Tensor, rounded: RoundedStatistics
) -> float:
    """‖Ŵ·X̂ − W·X‖² for weights W and what they were rounded to, [rows, in] float32 each.

    exact: X·Xᵀ.
    """
    linear = nn.functional.linear
    total = (linear(evaluated, rounded.gram) * evaluated).sum(dtype=torch.float64)
    total -= 2 * ((weight @ rounded.cross) * evaluated).sum(dtype=torch.float64)
    total += (linear(weight, exact) * weight).sum(dtype=torch.float64)
    return float(total)


def search_range(values: Tensor, settings: Activations, every: int = 1) -> Grid:
    """The static range of a group's input with the least squared error of rounding.

    values: [tokens, in] float32, of calibration. Scale and zero are [1] or, by group, [groups].
    every: look at one in so many of the shares. Floating-point types keep the largest magnitude,
    because what they round small values to hardly depends on it.
    """
    if settings.type != INT:
        scale = static_scale(values, settings.type)
        return Grid(scale, torch.zeros_like(scale), 0, 0)
    parts = by_channel_group(values, settings)  # [tokens, in] or [tokens, groups, group_size]
    if settings.granularity != GROUP:
        parts = parts[:, None]
    low, high = parts.amin((0, 2)), parts.amax((0, 2))  # [groups]
    best = grid_of_range(low, high, settings)
    least = torch.full_like(low, torch.inf)
    for step in range(0, RANGE_STEPS, every):
        keep = RANGE_STEP**step
        grid = grid_of_range(low * keep, high * keep, settings)
        wide = replace(grid, scale=grid.scale[:, None], zero=grid.zero[:, None])
        error = (round_to(parts, wide) - parts).square().sum((0, 2))
        better = error < least
        least = torch.where(better, error, least)
        best = replace(
            best,
            scale=torch.where(better, grid.scale, best.scale),
            zero=torch.where(better, grid.zero, best.zero),
        )
    return best


def static_ranges(
    architecture: Architecture, statistics: Sequence[InputStatistics], settings: Activations | None
) -> list[Grid | None]:
    """Each group's static range; None for what has none."""
    ranges: list[Grid | None] = []
    for group, of_group in zip(architecture.groups, statistics, strict=True):
        chosen = activations_for(group, settings)
        static = chosen is not None and chosen.range == STATIC
        ranges.append(search_range(torch.cat(of_group.sample), chosen) if static else None)  # type: ignore[arg-type]
    return ranges
