"""Which kernels multiply by the packed weights of a loaded model on this machine."""

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from radquant.checkpoints.loading import Loaded, weight_bytes
from radquant.kernels import cpu, int4pack
from radquant.kernels.rounding import Rounding, rounding_of, unfit
from radquant.packed.linear import PackedLinear
from radquant.runtime.activations import ActivationQuantization
from radquant.settings.precision import DYNAMIC, TENSOR, Activations, same_rounding

KERNEL_ACTIVATIONS = Activations(bits=8)  # the rounding of activations that kernels do themselves


def use_kernels(loaded: Loaded) -> None:
    """Let this machine's kernels multiply by the packed layers of `loaded`, where there are any.

    Activations that become integers, without a scale over several tokens, are then rounded by the
    kernels themselves. On a GPU that holds for scales by token alone. `loaded.simulation` is None
    afterwards. What they do not do stays simulated. Without kernels PyTorch's own multiply on a CPU
    in bfloat16, and elsewhere everything stays as it is; a line on stderr says so.
    """
    model = loaded.model
    packed = {name: m for name, m in model.named_modules() if isinstance(m, PackedLinear)}
    if not packed:
        return
    reason = missing_kernels(model)
    if reason is not None and int4pack_runs(model, packed.values()):
        how = "PyTorch's own 4-bit product"
        print(f"packed weights are multiplied by {how}: {reason}", file=sys.stderr)
        loaded.kernel = int4pack.install(packed)
        loaded.weight_bytes = weight_bytes(model)
        return
    if reason is not None:
        print(f"packed weights are multiplied by the slow reference: {reason}", file=sys.stderr)
        return
    settings = None if loaded.simulation is None else loaded.simulation.settings
    if torch.device(model.device).type == "cuda":
        from radquant.kernels import triton_model

        by_token = same_rounding(settings, KERNEL_ACTIVATIONS)
        integers = by_token and all(map(takes_integers, packed.values()))
        try:
            loaded.kernel = triton_model.install(model, settings if integers else None)
        except OSError as error:
            reason = f"Triton cannot keep what it compiles ({error}); set TRITON_CACHE_DIR"
            print(f"packed weights are multiplied by the slow reference: {reason}", file=sys.stderr)
            return
    else:
        roundings = kernel_roundings(loaded.simulation, packed)
        loaded.kernel, integers = cpu.install(packed, roundings), bool(roundings)
    if integers and loaded.simulation is not None:
        loaded.simulation.remove()
        loaded.simulation = None
        loaded.widened = settings is not None and settings.bits < cpu.BITS
    loaded.weight_bytes = weight_bytes(model)


def kernel_roundings(
    simulation: ActivationQuantization | None, packed: Mapping[str, PackedLinear]
) -> dict[str, Rounding]:
    """How the CPU kernels round the inputs of layers; none if they do not do so for all.

    A scale over several tokens would need to know which of them are padding.
    """
    if simulation is None or unfit(simulation.settings) is not None:
        return {}
    settings, static = simulation.settings, simulation.static or {}
    if (settings.granularity, settings.range) == (TENSOR, DYNAMIC):
        return {}
    found = {name: rounding_of(settings, static.get(name)) for name in simulation.names}
    fit = all(n in packed and cpu.fits(packed[n], rounding) for n, rounding in found.items())
    return found if fit else {}


def missing_kernels(model: Any) -> str | None:
    """Why there are no kernels for this model here, in a few words; None if there are."""
    on_gpu = torch.device(model.device).type == "cuda"
    fast = (torch.float16, torch.bfloat16) if on_gpu else (torch.float32, torch.bfloat16)
    if model.dtype not in fast:
        return f"there is no kernel for {str(model.dtype).removeprefix('torch.')} here"
    if not on_gpu:
        return cpu.unavailable()
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install 'radquant[gpu]')"
    return None


def int4pack_runs(model: Any, layers: Iterable[PackedLinear]) -> bool:
    """Whether PyTorch's own 4-bit product, made for bfloat16 on CPUs, takes any of the layers."""
    on_cpu = torch.device(model.device).type == "cpu"
    return on_cpu and model.dtype == torch.bfloat16 and any(map(int4pack.fits, layers))


def takes_integers(layer: PackedLinear) -> bool:
    """Whether a GPU's kernels multiply this layer by INT8 activations, and may."""
    from radquant.kernels.triton_layout import why_not

    return not layer.keeps_input and why_not(layer) is None
