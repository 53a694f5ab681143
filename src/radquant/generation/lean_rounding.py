"""How the inputs of a model's packed layers are rounded in this package's own decoder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from radquant.checkpoints.loading import Loaded
from radquant.kernels.cpu import fits
from radquant.kernels.rounding import Rounding, rounding_of, unfit
from radquant.packed.linear import PackedLinear, QuantizedLinear
from radquant.runtime.activations import Grid
from radquant.runtime.layer_names import quantized_layers
from radquant.settings.precision import Activations


@dataclass(frozen=True)
class Inputs:
    """Which layers of a model round what they read, and how; none without settings."""

    settings: Activations | None = None
    names: frozenset[str] = frozenset()
    static: Mapping[str, Grid] = field(default_factory=dict)  # by name, of static ranges

    def of(self, name: str) -> Rounding | None:
        """The rounding of a layer's input; None: it stays as it is."""
        if self.settings is None or name not in self.names:
            return None
        return rounding_of(self.settings, self.static.get(name))


def inputs_of(loaded: Loaded, settings: Activations | None) -> Inputs:
    """What `settings` round of the model, as the simulation of it does."""
    if settings is None:
        return Inputs()
    modules = loaded.model.named_modules()
    layers = [n for n, m in modules if isinstance(m, QuantizedLinear) and not m.keeps_input]
    static = None if loaded.simulation is None else loaded.simulation.static
    return Inputs(settings, frozenset(quantized_layers(layers, settings)), static or {})


def layers_name(model: Any, layers: Any) -> str:
    """What the names of all layers of a model's decoder begin with."""
    return next(name for name, module in model.named_modules() if module is layers)


def unfit_input(linear: nn.Module, name: str, inputs: Inputs) -> str | None:
    """Why the decoder cannot round the input of this layer, in a few words; None if it can."""
    rounding = inputs.of(name)
    if rounding is None:
        return None
    assert inputs.settings is not None
    reason = unfit(inputs.settings)
    if reason is not None:
        return reason
    if not isinstance(linear, PackedLinear):
        return "a layer is not packed, whose activations are to be rounded"
    size = rounding.numbers[4]
    if size and (linear.in_features % size or not fits(linear, rounding)):
        return f"groups of {size} activations do not fit groups of {linear.group_size} weights"
    return None
