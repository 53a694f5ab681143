"""Every weight of a checkpoint against the original's, decoder layer by decoder layer.

Nothing is computed with the models, and one decoder layer of each is in memory at a time. What
tools move between layers is undone (`folding`), and a rotated checkpoint is compared with the
original rotated in the same way. What is left is judged by `distances`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.compatible import check_architecture, check_tokenizers
from radquant.checkpoints.streaming import fill
from radquant.cli import progress
from radquant.errors import UserError
from radquant.families.architectures import Architecture, Group, Norm
from radquant.families.inspection import decoder_layers, head_dim_of, linears, of_layer
from radquant.model_files import is_gguf
from radquant.quantization.original_model import Original, open_original
from radquant.quantization.rotated_embeddings import own_name
from radquant.quantization.rotation import (
    Rotation,
    plan_rotation,
    rotate_layer,
    rotated_architecture,
)
from radquant.runtime.runtime_file import OWN_METHOD, online_rotations, read_runtime
from radquant.tokenizer_files import same_tokenizer_files
from radquant.verification import distances
from radquant.verification.blocks import column_sums, squared_error
from radquant.verification.distances import (
    Distance,
    bounds_of,
    distance,
    linear_checks,
    neighbour_checks,
)
from radquant.verification.folding import Moved, moves, with_every_source
from radquant.verification.outside import ROUNDED, SAME, difference, outside_checks
from radquant.verification.ranges import Ranges, held_by_grids, largest_of_original
from radquant.verification.reading import Checkpoint, Linear
from radquant.verification.selftest import Check

CPU = torch.device("cpu")
BY_FACTOR = 0.1  # the same where a factor had to be fitted to rounded weights
MOST_OTHERS = 0.25  # of a norm's channels, if nothing was folded into it
LEAST_CHANNEL = 1e-3  # of a norm, beside its largest, of which a share is taken


def compare_weights(
    checkpoint: Checkpoint, original: Path, fitted: int | None, code: bool = False
) -> list[Check]:
    """All checks of a checkpoint's weights against the original's in the directory `original`.

    fitted: the bits of rounded inputs that the weights are fitted to, if they are. code: whether
    the original's own program code may run. Raises UserError for another architecture.
    """
    source = open_original(original, code)
    if type(source.model) is not type(checkpoint.model):
        raise UserError(f"{original} holds another kind of model than {checkpoint.directory}")
    require_same_parts(source, checkpoint, original)
    check_architecture(original, checkpoint.directory, code)
    if not same_tokenizer_files(original, checkpoint.directory):
        check_tokenizers(original, checkpoint.directory, code)
    rotation = rotation_of(source, checkpoint)
    path = source.architecture.decoder_layers
    ranges = ranges_of(source, checkpoint, rotation, original, code)
    count = len(decoder_layers(source.model, source.architecture))
    compared: dict[int, LayerComparison] = {}
    usual: dict[str, float] = {}
    label = f"compare weights of {checkpoint.directory.name}"
    for number in progress(range(count), label, count, "layers"):
        compared[number] = compare_layer(
            number, source, checkpoint, rotation, fitted, ranges, usual
        )
    moved = [each.moved for each in compared.values()]
    for name in {name for each in moved for name in each.usual}:
        usual[name] = median(each.usual[name] for each in moved if name in each.usual)
    for number in [number for number, each in compared.items() if each.moved.contradicting]:
        compared[number] = compare_layer(
            number, source, checkpoint, rotation, fitted, ranges, usual
        )
    checks = [check for each in compared.values() for check in each.made]
    found = [one for each in compared.values() for one in each.found]
    with torch.inference_mode():
        checks += outside_checks(source, checkpoint, rotation, fitted)
        checks += ranges.cache_checks(path, checkpoint.cache_scales)
    return [*checks, *neighbour_checks(found, fitted)]


def ranges_of(
    source: Original, checkpoint: Checkpoint, rotation: Rotation | None, original: Path, code: bool
) -> Ranges:
    """What is fixed for run time; of a rotated checkpoint, which has other inputs, nothing."""
    grids = read_runtime(checkpoint.directory, checkpoint.quantization).static
    if rotation is None and (grids or checkpoint.has_static_ranges or checkpoint.cache_scales):
        return Ranges(held_by_grids(grids), largest_of_original(source, original, code))
    return Ranges({}, None)


def compare_layer(
    number: int,
    source: Original,
    checkpoint: Checkpoint,
    rotation: Rotation | None,
    fitted: int | None,
    ranges: Ranges,
    usual: Mapping[str, float],
) -> LayerComparison:
    """One decoder layer; the original's is in memory as long as this takes.

    usual: as `folding.moves` wants it.
    """
    layer = decoder_layers(source.model, source.architecture)[number]
    tensors = source.layer_tensors(number)
    fill(layer, {own: source.stored[name] for own, name in tensors.items()}, CPU)
    with torch.inference_mode():
        architecture = with_every_source(of_layer(layer, source.architecture))
        if rotation is not None:
            rotate_layer(layer, source.architecture, rotation)
            architecture = rotated_architecture(architecture, rotation)
        path = f"{architecture.decoder_layers}.{number}"
        comparing = LayerComparison(checkpoint, path, layer, architecture, fitted, ranges, usual)
        comparing.compare(head_dim_of(source.config))
    ranges.note_rows(number, comparing.moved.rows)
    layer.to("meta")
    return comparing


def require_same_parts(source: Original, checkpoint: Checkpoint, original: Path) -> None:
    """Raise UserError unless both models have the same parameters of the same shapes.

    A GGUF file may lack rows of the vocabulary that no token has.
    """
    theirs, mine = (
        {n: list(p.shape) for n, p in each.named_parameters()}
        for each in (source.model, checkpoint.model)
    )
    model: Any = source.model
    tables = [
        own_name(model, each)
        for each in (model.get_input_embeddings(), model.get_output_embeddings())
    ]
    for name in sorted(theirs.keys() | mine.keys()):
        shapes = [each.get(name) for each in (mine, theirs)]
        if name in tables and None in shapes:  # the head is the embedding in one of them
            continue
        if name in tables and is_gguf(checkpoint.quantization):
            shapes = [shape and shape[1:] for shape in shapes]
        if shapes[0] != shapes[1]:
            said = [shape or "none" for shape in shapes]
            raise UserError(
                f"{checkpoint.directory} is no checkpoint of {original}: {name} has shape "
                f"{said[0]} there, and {said[1]} in the original; name the model that it was made "
                "from"
            )


def rotation_of(source: Original, checkpoint: Checkpoint) -> Rotation | None:
    """How the checkpoint is rotated; None if it is not. UserError for a way that is not ours."""
    if checkpoint.quantization.get("quant_method") != OWN_METHOD:
        return None
    rotation = plan_rotation(source.architecture, source.config, head_dim_of(source.config))
    if sorted(rotation.online) != sorted(online_rotations(checkpoint.quantization)):
        raise UserError(
            f"{checkpoint.directory} rotates other inputs at run time than models of its kind do; "
            "quantize again"
        )
    return rotation


@dataclass
class LayerComparison:
    """One decoder layer of a checkpoint beside the original's."""

    checkpoint: Checkpoint
    path: str  # of the decoder layer in the model
    layer: nn.Module  # the original's, float32, rotated as the checkpoint is
    architecture: Architecture
    fitted: int | None
    ranges: Ranges
    usual: Mapping[str, float]

    def __post_init__(self) -> None:
        self.found: list[Distance] = []
        self.made: list[Check] = []
        self.moved = Moved()

    def compare(self, head_dim: int) -> None:
        """Make all of the layer's checks, and keep what they were made of."""
        self.made = list(self.checks(head_dim))

    def checks(self, head_dim: int) -> Iterator[Check]:
        """All of the layer's; what was measured of its linear layers is in `found` then."""
        mine = {name: self.linear(name) for name in linears(self.layer)}
        weights = {name: each.weight for name, each in mine.items()}
        groups = self.architecture.groups
        sources = {g.source.name: g.source for g in groups if isinstance(g.source, Norm)}
        norms = {name: self.plain(f"{name}.weight") for name in sources}
        moved = moves(weights, self.layer, norms, self.architecture, head_dim, self.usual)
        self.free_columns(weights, moved, sources)
        self.moved = moved
        blamed: set[str] = set()
        for group in groups:
            if isinstance(group.source, Norm):
                yield from self.channel_check(group.source, norms[group.source.name])
                check = self.norm_check(group, group.source, norms, mine, moved)
                yield check
                if not check.holds:
                    blamed |= set(group.linears)
        for name, linear in mine.items():
            aim = moved.aim(name, self.layer.get_parameter(f"{name}.weight"))
            if name in blamed:
                factor = column_factors(linear.weight, aim)
                aim = aim * factor
            one = distance(f"{self.path}.{name}", linear, aim)
            self.found.append(one)
            yield from linear_checks(one, self.fitted)
            yield from self.ranges.checks(
                f"{self.path}.{name}",
                linear.input_scale,
                self.checkpoint.activations,
                moved.columns.get(name),
            )
        yield from self.rest(moved, sources, {name: each.bits for name, each in mine.items()})

    def linear(self, name: str) -> Linear:
        own = f"{self.path}.{name}"
        if own in self.checkpoint.packed:
            return self.checkpoint.packed[own]()
        weight = self.checkpoint.plain[f"{own}.weight"]()
        return Linear(weight, weight.abs() * ROUNDED + weight.abs().mean() * ROUNDED, 8)

    def plain(self, name: str) -> Tensor:
        return self.checkpoint.plain[f"{self.path}.{name}"]()

    def free_columns(
        self, weights: Mapping[str, Tensor], moved: Moved, sources: Mapping[str, Norm]
    ) -> None:
        """Fit what was folded into the columns of layers of which nothing is known.

        Only if something was: one of the layer's other weights is not the original's.
        """
        known = {name for g in self.architecture.groups if g.source for name in g.linears}
        unknown = [name for name in weights if name not in known]
        if not unknown or len(known):
            return
        others = [
            name
            for name, each in self.layer.named_parameters()
            if each.ndim == 1 and not name.endswith(".bias")
        ]
        if all(self.is_same(name) for name in others):
            return
        for name in unknown:
            original = self.layer.get_parameter(f"{name}.weight")
            moved.columns[name] = column_factors(weights[name], original)

    def is_same(self, name: str) -> bool:
        mine, original = self.plain(name), self.layer.get_parameter(name)
        return difference(mine, original) <= ROUNDED

    def channel_check(self, source: Norm, norm: Tensor) -> Iterator[Check]:
        """Of a norm that nothing was folded into, every channel is the original's."""
        original = self.layer.get_parameter(f"{source.name}.weight")
        other = (norm - original).abs() > ROUNDED * original.abs()
        if int(other.sum()) < MOST_OTHERS * len(other):
            least = original.abs().amax().clamp(min=1e-30) * LEAST_CHANNEL
            apart = (norm - original).abs() / original.abs().clamp(min=float(least))
            yield Check(f"{self.path}.{source.name}: {SAME}", float(apart.amax()), ROUNDED)

    def norm_check(
        self,
        group: Group,
        source: Norm,
        norms: Mapping[str, Tensor],
        mine: Mapping[str, Linear],
        moved: Moved,
    ) -> Check:
        """Whether a norm's channels agree with the columns of all layers that read it.

        Where one of these is off by itself, the norm is not to blame.
        """
        name = f"{self.path}.{source.name}: {distances.NORM}"
        bits = min(mine[each].bits for each in group.linears)
        bound = bounds_of(bits, self.fitted).norm
        original = self.layer.get_parameter(f"{source.name}.weight")
        same = (norms[source.name] - original).abs() <= ROUNDED * original.abs()
        if bool(same.all()):
            return Check(name, 0.0, bound)
        errors, squares, chance = 0.0, 0.0, 0.0
        products, sizes = 0.0, []
        explained = True
        for each in group.linears:
            weight = mine[each].weight
            aim = moved.aim(each, self.layer.get_parameter(f"{each}.weight"))
            factor = column_factors(weight, aim)
            column_squares = column_sums(aim, aim)
            product, energy = float((factor * column_squares).sum()), float(column_squares.sum())
            products += product
            sizes.append(product / energy if energy else 1.0)
            left, size = squared_error(weight, aim, by_columns=factor)
            errors += float(((factor - 1).square() * column_squares).sum())
            squares += energy
            chance += left / len(weight)  # what rounding makes of factors by itself
            bound_of_layer = bounds_of(mine[each].bits, self.fitted).weights
            explained = explained and left <= bound_of_layer**2 * size
        measured = (max(errors - chance, 0.0) / squares) ** 0.5 if squares else 0.0
        # Rounding cuts off the largest channels, so a few of them may be off by twice as much.
        whole = abs(products / squares - 1) if squares else 0.0
        measured = max(measured / 2, whole)
        # A norm that is off moves all layers that read it by the same factor.
        explained = explained and max(sizes) - min(sizes) <= 4 * bound * abs(max(sizes))
        if measured > bound and not explained:
            return Check(name, 0.0, bound)  # the layers are told of one by one
        return Check(name, measured, bound)

    def rest(
        self, moved: Moved, sources: Mapping[str, Norm], bits: Mapping[str, int]
    ) -> Iterator[Check]:
        """Biases, norms of which nothing can be folded, and all else that is no linear layer.

        bits: of each linear layer.
        """
        weights = {f"{name}.weight" for name in linears(self.layer)}
        read = {f"{name}.weight" for name in sources}
        for name, original in self.layer.state_dict().items():
            if name in weights | read:
                continue
            linear, _, kind = name.rpartition(".")
            rows = moved.rows.get(linear) if kind == "bias" else None
            aim = original if rows is None else original * rows
            if kind == "weight" and linear in moved.columns:
                aim = original * moved.columns[linear]
            bound = ROUNDED
            if rows is not None:
                bound = max(BY_FACTOR, bounds_of(bits[linear], self.fitted).norm)
            yield Check(f"{self.path}.{name}: {SAME}", difference(self.plain(name), aim), bound)


def column_factors(weight: Tensor, aim: Tensor) -> Tensor:
    """The c of each column that makes ‖w − c·a‖ least, [in]; 1 for columns of zeros."""
    squares = column_sums(aim, aim)
    factor = column_sums(weight, aim) / squares.clamp(min=1e-30)
    return torch.where(squares > 1e-30, factor, 1.0)
