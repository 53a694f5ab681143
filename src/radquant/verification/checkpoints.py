"""A quantized checkpoint against what it says of itself, and against the model it was made from.

Every weight is compared with the original's (`weights`). What the checkpoint computes can be, too:
a decoder layer's output for the original's input, and the logits. A rotated checkpoint's layers are
then compared with those of the original rotated in the same way. Its logits are compared with those
of the original as it is. Inputs are not rounded, and a stored prefix is left out.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.building import read_settings
from radquant.checkpoints.loading import load
from radquant.checkpoints.writing import RECORD
from radquant.cli import progress
from radquant.errors import UserError
from radquant.families.inspection import architecture_of, head_dim_of
from radquant.files import read_json
from radquant.finite import largest_of
from radquant.memory_plan import kept_by_layer
from radquant.packed.linear import PackedLinear, QuantizedLinear
from radquant.quantization.rotated_embeddings import rotate_model
from radquant.quantization.rotation import plan_rotation
from radquant.runtime.layer_names import quantized_layers
from radquant.runtime.runtime_file import OWN_METHOD, Runtime, online_rotations, read_runtime
from radquant.settings.precision import GROUP
from radquant.verification.distances import FITTED, WEIGHTS
from radquant.verification.reading import open_checkpoint
from radquant.verification.selftest import Check
from radquant.verification.stored_layers import file_checks
from radquant.verification.weights import compare_weights

SHOWN_BROKEN = 10
OUTPUT = ": output"
ALONE = (
    "without --original only the form of what is stored was checked, and not one value of a weight"
)


@dataclass(frozen=True)
class Bounds:
    """The most that an error may be before a checkpoint counts as broken.

    They tell a broken checkpoint from a sound one, not a good one from a poor one.
    """

    layer: float  # error of what a decoder layer adds to its input, relative to that
    divergence: float  # mean KL divergence of the next token from the original's, nats


# Errors of sound checkpoints of SmolLM2-135M with room above them.
USUAL = {
    2: Bounds(2.0, 20.0),
    3: Bounds(1.0, 6.0),
    4: Bounds(0.6, 2.0),
    8: Bounds(0.1, 0.1),
}
# Weights that are fitted to rounded inputs err more. {bits of the inputs: bits whose bounds hold}
AS_FITTED = {8: 4, 4: 3}


def runtime_checks(runtime: Runtime, widths: Mapping[str, int], model: Any) -> Iterator[Check]:
    """Static ranges, one for each layer whose input is rounded, and the states of a prefix.

    widths: the number of inputs of every packed layer. model: may be an empty one.
    """
    if runtime.static:
        assert runtime.activations is not None
        settings = runtime.activations
        rounded = set(quantized_layers(list(widths), settings))
        amiss = len(rounded ^ runtime.static.keys())
        yield Check("static ranges: layers without, or with one too many", amiss, 0)
        for name in sorted(rounded & runtime.static.keys()):
            grid, width = runtime.static[name], widths[name]
            count = width // settings.group_size if settings.granularity == GROUP else 1
            shapes = [grid.scale.shape, grid.zero.shape]
            yield Check(
                f"{name}: static ranges amiss in number", sum(s != (count,) for s in shapes), 0
            )
            scales = (~torch.isfinite(grid.scale) | (grid.scale <= 0)).sum()
            yield Check(f"{name}: static scales that are not positive numbers", int(scales), 0)
            last = 0 if settings.symmetric else grid.high
            zeros = (grid.zero != grid.zero.round().clamp(0, last)).sum()
            yield Check(f"{name}: static zeros out of place", int(zeros), 0)
    if runtime.prefix is not None:
        config, states = model.config.get_text_config(), runtime.prefix
        expected = [[1, heads, len(states.ids), width] for heads, width in kept_by_layer(config)]
        amiss = sum(
            list(each.shape) != shape
            for kind in (states.keys, states.values)
            for each, shape in zip(kind, expected, strict=False)
        )
        amiss += abs(len(states.keys) - config.num_hidden_layers)
        yield Check("prefix: states of another shape than the model's", amiss, 0)
        count = model.get_input_embeddings().num_embeddings
        outside = sum(not 0 <= token < count for token in states.ids)
        yield Check("prefix: tokens outside of the vocabulary", outside, 0)


def rotate_like(model: Any, directory: Path, online: tuple[str, ...]) -> None:
    """Rotate an original in place as the checkpoint in `directory` is, with these inputs `online`.

    Raises UserError if such a model is rotated in another way.
    """
    architecture = architecture_of(model.config, model)
    rotation = plan_rotation(architecture, model.config, head_dim_of(model.config))
    if sorted(rotation.online) != sorted(online):
        raise UserError(
            f"{directory} rotates other inputs at run time than models of its kind do; "
            "quantize again"
        )
    rotate_model(model, architecture, rotation)


def fitted_to(directory: Path) -> int | None:
    """To inputs of how many bits a checkpoint's weights are fitted by its record; None: to exact.

    They make good for what rounding does to inputs, and are off where these are exact.
    """
    if not (directory / RECORD).is_file():
        return None
    recipe = read_json(directory / RECORD).get("recipe") or {}
    rounding = recipe.get("activations")
    if not rounding or recipe.get("method") == "rtn":
        return None
    return int(rounding["bits"]) if rounding["bits"] in FITTED else min(FITTED)


def seeded_sequences(count: int, length: int, vocabulary: int, seed: int) -> list[Tensor]:
    """Random token ids, each [length] int64."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, vocabulary, (length,), generator=generator) for _ in range(count)]


def layers_path(names: Sequence[str]) -> str:
    """The path of the list of decoder layers that packed layers with these names lie in."""
    paths = {match[1] for name in names if (match := re.match(r"(.*?)\.\d+\.", name))}
    if len(paths) != 1 or not all(name.startswith(f"{next(iter(paths))}.") for name in names):
        raise UserError(
            "the packed layers do not all lie in one list of decoder layers; "
            "this kind of checkpoint cannot be verified"
        )
    return paths.pop()


@torch.inference_mode()
def output_checks(
    model: nn.Module,
    original: nn.Module,
    path: str,
    sequences: Sequence[Tensor],
    expected_logits: Sequence[Tensor],
    bounds: Bounds,
) -> list[Check]:
    """Each decoder layer's output for the original's input, and the logits of the whole model.

    expected_logits: the original's, [tokens, vocabulary] of each sequence.
    """
    mine, theirs = model.get_submodule(path), original.get_submodule(path)
    assert isinstance(mine, nn.ModuleList)
    assert isinstance(theirs, nn.ModuleList)
    squares = torch.zeros(len(theirs), 2, dtype=torch.float64)  # of the error, of what is added
    handles = [
        layer.register_forward_hook(comparing(mine[number], squares[number]), with_kwargs=True)
        for number, layer in enumerate(theirs)
    ]
    divergences, agreements = [], []
    try:
        pairs = zip(sequences, expected_logits, strict=True)
        for ids, expected in progress(pairs, "compare outputs", len(sequences), "sequences"):
            logits_of(original, ids)  # for its layers' sake
            logits = logits_of(model, ids)
            divergences.append(divergence(expected, logits))
            agreements.append((expected.argmax(-1) == logits.argmax(-1)).float())
    finally:
        for handle in handles:
            handle.remove()
    errors = (squares[:, 0] / squares[:, 1].clamp(min=1e-30)).sqrt()
    checks = [
        Check(f"{path}.{number}{OUTPUT}", float(error), bounds.layer)
        for number, error in enumerate(errors)
    ]
    kl, disagreeing = torch.cat(divergences).mean(), 1 - torch.cat(agreements).mean()
    checks.append(
        Check("logits: divergence from the original (nats)", float(kl), bounds.divergence)
    )
    return [*checks, Check("logits: share of other first choices", float(disagreeing), 1.0)]


@torch.inference_mode()
def logits_of(model: nn.Module, ids: Tensor) -> Tensor:
    """Of a sequence, [tokens] -> [tokens, vocabulary] float32."""
    tokens = ids[None].to(next(model.parameters()).device)
    logits: Tensor = model(input_ids=tokens, use_cache=False).logits[0]
    return logits.float()


def comparing(layer: nn.Module, squares: Tensor) -> Any:
    """A hook that runs `layer`, too, on an original layer's input and adds up both squared norms.

    squares: [2] float64, of the outputs' difference and of what the original adds to its input.
    """

    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        got = layer(*args, **kwargs)
        expected, got = (y[0] if isinstance(y, tuple) else y for y in (output, got))
        squares[0] += (got - expected).double().square().sum().item()
        squares[1] += (expected - hidden).double().square().sum().item()

    return hook


def divergence(expected: Tensor, logits: Tensor) -> Tensor:
    """KL(expected ‖ logits) of each token's distribution, [tokens, vocabulary] -> [tokens]."""
    p, q = expected.log_softmax(-1), logits.log_softmax(-1)
    # A token of probability 0 in the original adds nothing, though its logarithm is −∞.
    return (p.exp() * (p - q)).masked_fill(p == -torch.inf, 0).sum(-1)


def changed_bounds(bits: int, given: Mapping[str, float | None]) -> Bounds:
    """The usual bounds for `bits`, or those given instead."""
    usual = USUAL[max((each for each in USUAL if each <= bits), default=min(USUAL))]
    named = {k: v for k, v in given.items() if v is not None and k in vars(usual)}
    return Bounds(**{**vars(usual), **named})


@dataclass
class Verification:
    """What was found; `notes` are for the reader, `checks` decide."""

    notes: list[str]
    checks: list[Check]


def verify_weights(
    directory: Path, original: Path | None, most: float | None = None, code: bool = False
) -> Verification:
    """Check what a checkpoint stores, and every weight against the original's in `original`.

    most: the bound of a linear layer's relative error, instead of the usual. code: whether the
    models' own program code may run. One decoder layer of each is in memory at a time. Raises
    UserError for a checkpoint that cannot be read, or is none of this original.
    """
    checkpoint = open_checkpoint(directory, code)
    model: Any = checkpoint.model
    widths = {name: model.get_submodule(name) for name in checkpoint.packed}
    widths = {n: each.in_features for n, each in widths.items() if isinstance(each, nn.Linear)}
    checks = list(
        runtime_checks(read_runtime(directory, checkpoint.quantization), widths, checkpoint.model)
    )
    notes = [checkpoint.about]
    if original is None:
        notes.append(ALONE)
    else:
        if checkpoint.quantization.get("quant_method") == OWN_METHOD:
            notes.append("rotated: compared with the original rotated in the same way")
        found = compare_weights(checkpoint, original, fitted_to(directory), code)
        named = f": {WEIGHTS}"
        checks += [
            replace(each, bound=most) if most is not None and each.name.endswith(named) else each
            for each in found
        ]
    recorded = (directory / RECORD).is_file()
    hashes = "the sha256 of every file is the one recorded" if recorded else "no record of hashes"
    return Verification([*notes, hashes], checks)


def verify_checkpoint(
    directory: Path,
    original: Path | None,
    sequences: Sequence[Tensor] | None,
    given: Mapping[str, float | None],
    dtype: torch.dtype,
    seeded: tuple[int, int, int] = (4, 64, 0),
) -> Verification:
    """Check a checkpoint, and compare weights and outputs with the original's if that is given.

    sequences: token ids, each [tokens] int64; None: `seeded` (count, length, seed) random ones.
    given: bounds by the names of `Bounds`, and "weight", to use instead of the usual. Both models
    are in memory in `dtype`. Raises UserError if the checkpoint cannot be read at all.
    """
    found = verify_weights(directory, original, given.get("weight"))
    loaded = load(directory, dtype=dtype)
    layers = {n: m for n, m in loaded.model.named_modules() if isinstance(m, QuantizedLinear)}
    packed = {name: each for name, each in layers.items() if isinstance(each, PackedLinear)}
    config = read_json(directory / "config.json")["quantization_config"]
    if packed:
        found.checks += file_checks(directory, packed, compared=original is not None)
    if original is None:
        return found
    reference = load(original, dtype=dtype)
    # The bounds are those of the layer with the fewest bits.
    bits = min((each.bits for each in packed.values()), default=4)
    fitted = fitted_to(directory)
    if fitted is not None:
        bits = min(bits, AS_FITTED[fitted])
    if packed:
        bits = min(bits, read_settings(directory, config).bits)
    bounds = changed_bounds(bits, given)
    if sequences is None:
        sequences = seeded_sequences(
            seeded[0], seeded[1], loaded.model.get_input_embeddings().num_embeddings, seeded[2]
        )
    expected = [logits_of(reference.model, ids) for ids in sequences]
    if config.get("quant_method") == OWN_METHOD:
        rotate_like(reference.model, directory, online_rotations(config))
    path = layers_path(list(layers))
    found.checks += output_checks(loaded.model, reference.model, path, sequences, expected, bounds)
    return found


def record_of(found: Verification) -> dict[str, Any]:
    """What is written of a verification: what was worst of each kind, and all that is broken.

    None stands for what is no finite number.
    """

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "notes": found.notes,
        "checks": len(found.checks),
        "worst": [
            {"name": each.name, "measured": finite(each.measured), "bound": finite(each.bound)}
            for each in worst_of(found.checks).values()
        ],
        "broken": [
            {
                "layer": each.name.rpartition(": ")[0],
                "what": each.name.rpartition(": ")[2],
                "measured": finite(each.measured),
                "bound": finite(each.bound),
            }
            for each in found.checks
            if not each.holds
        ],
    }


def worst_of(checks: Sequence[Check]) -> dict[str, Check]:
    """The worst check of each kind, by its kind."""
    worst: dict[str, Check] = {}
    for check in checks:
        kind = check.name.rpartition(": ")[2]
        if kind not in worst or is_worse(check, worst[kind]):
            worst[kind] = check
    return worst


def table_of(checks: Sequence[Check]) -> str:
    """The checks as lines of text: the worst of each kind, those that fail, and all layers' errors.

    A check's name is "what it is about: kind".
    """
    if not checks:
        return "nothing was measured"
    worst = worst_of(checks)
    broken = [check for check in checks if not check.holds and check not in worst.values()]
    shown = [*worst.values(), *broken[:SHOWN_BROKEN]]
    width = max(len(check.name) for check in shown)
    lines = [
        f"{check.name:<{width}}  {check.measured:>9.4g}  at most {check.bound:<6.4g}  "
        f"{'ok' if check.holds else 'BROKEN'}"
        for check in shown
    ]
    if len(broken) > SHOWN_BROKEN:
        lines.append(f"and {len(broken) - SHOWN_BROKEN} more that are broken")
    return "\n".join([*lines, *layer_lines(checks)])


def is_worse(one: Check, other: Check) -> bool:
    """Whether more was measured, and first whether it is too much; nothing is worse than NaN."""
    if math.isnan(other.measured):
        return False
    if one.holds != other.holds:
        return other.holds
    return not one.measured <= other.measured


def layer_lines(checks: Sequence[Check]) -> list[str]:
    """A line for each decoder layer: the largest error of its weights, and its output's."""
    outputs = {c.name.removesuffix(OUTPUT): c.measured for c in checks if c.name.endswith(OUTPUT)}
    if not outputs:
        return []
    width = max(map(len, outputs))
    lines = ["", f"{'decoder layer':<{width}}  {'weights':>9}  {'output':>9}"]
    for layer, output in outputs.items():
        weights = [
            c.measured
            for c in checks
            if c.name.startswith(f"{layer}.") and c.name.endswith(f": {WEIGHTS}")
        ]
        lines.append(f"{layer:<{width}}  {largest_of(weights):>9.4g}  {output:>9.4g}")
    return lines


def told(checks: Sequence[Check]) -> str:
    broken = sum(not check.holds for check in checks)
    return f"{len(checks)} checks, {broken} broken"


def refuse_broken(checks: Sequence[Check]) -> None:
    """Raise UserError that names the first check whose bound is broken."""
    broken = [check for check in checks if not check.holds]
    if broken:
        first = broken[0]
        others = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UserError(
            f"{first.name} is {first.measured:.4g}, more than {first.bound:.4g}{others}"
        )
