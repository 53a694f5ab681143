"""That a transformed decoder layer computes what it did, before anything is rounded."""

import math

from torch import nn

from radquant.errors import UserError
from radquant.families.architectures import Architecture
from radquant.finite import NOT_FINITE, largest_of, relative_change
from radquant.quantization.calibration_statistics import Inputs, place_of_broken
from radquant.quantization.hidden_states import Hidden, run_layer
from radquant.quantization.rotation import Rotation, change_by_rotation, rotate_residual

CHECKED_SEQUENCES = 8  # behind the stored prefix, which may be the first
# Largest relative change of a layer's output through folding; layers are held in float32.
INVARIANCE_BOUND = 1e-4


def check_change(
    change: float, name: str, what: str, remedy: str = "the table for this architecture is wrong"
) -> None:
    if not change <= INVARIANCE_BOUND:
        raise UserError(
            f"{what} changed the output of {name} by {change:.2g} relative to it "
            f"(at most {INVARIANCE_BOUND:g} is rounding); {remedy}"
        )


def refuse_broken(
    change: float, layer: nn.Module, table: Architecture, inputs: Inputs, name: str
) -> None:
    """Raise UserError if a change is NaN, because what a layer computes is none of its numbers."""
    if not math.isnan(change):
        return
    for group in table.groups:
        if where := place_of_broken(layer, group.linears[0], inputs):
            raise UserError(f"{name}.{group.linears[0]}: {NOT_FINITE.format(where)}")
    raise UserError(f"{name}, its output: {NOT_FINITE.format('')}")


def checked_sequences(inputs: Inputs) -> int:
    """How many sequences, the first ones, a layer's outputs are compared by."""
    return min(CHECKED_SEQUENCES + (inputs.prefix > 0), len(inputs.arguments))


def change_by_folding(layer: nn.Module, inputs: Inputs, outputs: Hidden) -> float:
    """The largest relative difference between `layer`'s outputs now and `outputs`."""
    changes = []
    for index in range(checked_sequences(inputs)):
        output = outputs.read(index, inputs.device)
        now = inputs.run(layer, index)
        changes.append(relative_change(now, output))
    return largest_of(changes)


def rotation_change(
    original: nn.Module, layer: nn.Module, inputs: Inputs, rotation: Rotation
) -> float:
    """The largest relative difference that rotating a layer makes to its outputs."""
    changes = []
    for index in range(checked_sequences(inputs)):
        hidden = inputs.hidden.read(index, inputs.device)
        straight = rotate_residual(hidden, rotation, inverse=True)
        expected = run_layer(original, straight, inputs.arguments[index])
        got = run_layer(layer, hidden, inputs.arguments[index])
        changes.append(change_by_rotation(expected, got, rotation))
    return largest_of(changes)
