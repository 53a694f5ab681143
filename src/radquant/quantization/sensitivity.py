"""How much an error in a linear layer's output moves what the model says.

Let e be an error of a layer's output at one token. To second order it moves the model's next-token
distribution by the divergence ½·E[(g·e)²]. There g is the gradient of the log-likelihood of a token
that is drawn from the model's own distribution (Fisher information; Martens 2020, arXiv:1412.1193).
Errors relative to the output's size say little of it: spending bits by them was worse than not
spending them at all (benchmarks/mixed_bits.py).

The gradients come from some calibration sequences, one decoder layer in memory at a time. The pass
goes forward through all layers, each one's inputs kept on disk, and backward from the head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.streaming import fill
from radquant.cli import progress
from radquant.families.architectures import Architecture
from radquant.families.inspection import decoder_layers, layer_linears
from radquant.finite import require_finite
from radquant.quantization.hidden_states import Hidden, LayerArguments, append, embed, run_layer
from radquant.quantization.original_model import Original
from radquant.quantization.samples import Sample

TOKENS = 2048  # of the calibration sequences that gradients are taken of, in whole sequences
SEED = 0  # of the tokens that are drawn


@dataclass(frozen=True)
class Sensitivity:
    """What the sampled sequences are, and where their states and gradients lie."""

    samples: list[Sample]
    states: list[Hidden]  # what each decoder layer gets, and what the last one makes
    gradients: list[Hidden]  # of the log-likelihood, by the same; the first is not there

    @property
    def tokens(self) -> int:
        return sum(map(len, self.samples))

    def remove(self) -> None:
        for each in (*self.states, *self.gradients):
            each.remove()


def sampled(samples: Sequence[Sample]) -> list[Sample]:
    """Samples of about TOKENS tokens together, evenly spaced."""
    tokens = sum(map(len, samples))
    count = max(1, min(len(samples), round(len(samples) * TOKENS / max(tokens, 1))))
    return [samples[place * len(samples) // count] for place in range(count)]


def look(
    open_source: Callable[[], Original],
    samples: Sequence[Sample],
    work: Path,
    device: torch.device,
) -> Sensitivity:
    """States and gradients of some of the calibration sequences, in files in `work`.

    open_source: the model, anew for each pass. What is there already is not made again.
    """
    source = open_source()
    layers = len(decoder_layers(source.model, source.architecture))
    chosen = sampled(samples)
    lengths, width = tuple(map(len, chosen)), source.config.get_text_config().hidden_size
    numbers = range(layers + 1)
    states = [Hidden(work / f"state-{n:04d}.f32", lengths, width) for n in numbers]
    gradients = [Hidden(work / f"gradient-{n:04d}.f32", lengths, width) for n in numbers]
    found = Sensitivity(chosen, states, gradients)
    if not gradients[1].path.is_file():  # which is made last
        arguments = forward(source, found, device)
        from_head(open_source(), found)
        backward(open_source(), found, arguments, device)
    return found


def filled(source: Original, number: int, device: torch.device) -> nn.Module:
    """Decoder layer `number` with its weights."""
    layer = decoder_layers(source.model, source.architecture)[number]
    places = source.layer_tensors(number)
    fill(layer, {own: source.stored[stored] for own, stored in places.items()}, device)
    return layer.to(device).requires_grad_(False)


def free(source: Original, number: int) -> None:
    decoder_layers(source.model, source.architecture)[number] = nn.Identity()


def forward(source: Original, found: Sensitivity, device: torch.device) -> LayerArguments:
    """Run the sampled sequences through all decoder layers; `source` is used up."""
    arguments = embed(source, found.samples, found.states[0], device)
    count = len(found.states) - 1
    for number in progress(range(count), "follow the states", count, "layers"):
        layer = filled(source, number, device)
        with torch.inference_mode(), found.states[number + 1].writing() as file:
            for index in range(len(found.samples)):
                state = found.states[number].read(index, device)
                append(file, run_layer(layer, state, arguments[index][number]))
        free(source, number)
    return arguments


def from_head(source: Original, found: Sensitivity) -> None:
    """Gradients by what the last decoder layer makes; `source` is used up.

    On the CPU: embedding and head may be larger than what else a GPU holds here.
    """
    cpu = torch.device("cpu")
    path, model = source.architecture.decoder_layers, source.model
    parent = path.rpartition(".")[0]
    layers = decoder_layers(model, source.architecture)
    head = {id(each) for each in model.get_output_embeddings().parameters()}  # type: ignore[operator]
    of_head = {name for name, each in model.named_parameters() if id(each) in head}
    outside = {
        own: source.stored[stored]
        for stored, own in source.own_names.items()
        if (own.startswith(f"{parent}.") and not own.startswith(f"{path}.")) or own in of_head
    }
    fill(model, outside, cpu)
    model.tie_weights()  # type: ignore[operator]
    model.requires_grad_(False)
    given: list[Tensor] = []

    def pass_on(*args: Any, first: bool, **kwargs: Any) -> Tensor:
        entering = args[0] if args else kwargs["hidden_states"]
        return given[0] if first else entering  # type: ignore[no-any-return]

    for number, layer in enumerate(layers):
        layer.forward = partial(pass_on, first=number == 0)  # type: ignore[method-assign]
    draw = torch.Generator().manual_seed(SEED)
    with found.gradients[-1].writing() as file:
        for index, sample in enumerate(found.samples):
            given[:] = [found.states[-1].read(index, cpu).requires_grad_(True)]
            # Tokens within an image are no text that a model predicts.
            logits = model(input_ids=sample.ids[None], use_cache=False).logits[0][sample.of_text]
            logits = logits.float()
            require_finite("the head's scores of a calibration text", logits.detach())
            drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=draw)[:, 0]
            loss = nn.functional.cross_entropy(logits, drawn, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, given)
            append(file, gradient)


def backward(
    source: Original, found: Sensitivity, arguments: LayerArguments, device: torch.device
) -> None:
    """Gradients by what each decoder layer gets, from the last to the second; `source` is used
    up."""
    count = len(found.states) - 1
    for number in progress(range(count - 1, 0, -1), "follow the gradients", count - 1, "layers"):
        layer = filled(source, number, device)
        with found.gradients[number].writing() as file:
            for index in range(len(found.samples)):
                state = found.states[number].read(index, device).requires_grad_(True)
                (gradient,) = of_layer(layer, state, found, arguments, number, index, [state])
                append(file, gradient)
        free(source, number)


def of_layer(
    layer: nn.Module,
    state: Tensor,
    found: Sensitivity,
    arguments: LayerArguments,
    number: int,
    index: int,
    by: Sequence[Tensor] | None,
) -> Sequence[Tensor]:
    """Run decoder layer `number` on one sequence, and its gradients by the tensors `by`; of None,
    only those that hooks look at."""
    given = usable(arguments[index][number])
    output = run_layer(layer, state, given)
    gradient = found.gradients[number + 1].read(index, state.device)
    return torch.autograd.grad(output, by or [state], gradient)


def usable(value: Any) -> Any:
    """Arguments that were made where no gradient can be taken, as ones of which it can."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {key: usable(each) for key, each in value.items()}
    return tuple(map(usable, value)) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Seen:
    """One linear layer's inputs and the gradients by its outputs, of the sampled tokens."""

    inputs: Tensor  # [tokens, in] float32
    gradients: Tensor  # [tokens, out] float32

    def divergence(self, delta: Tensor) -> float:
        """½·Σ (g·Δx)² over the tokens, in nats, for a weight error Δ, [out, in] float32."""
        moved = (nn.functional.linear(self.inputs, delta) * self.gradients).sum(-1)
        return 0.5 * float(moved.square().sum(dtype=torch.float64))


def see(
    layer: nn.Module,
    architecture: Architecture,
    number: int,
    found: Sensitivity,
    arguments: LayerArguments,
    device: torch.device,
) -> dict[str, Seen]:
    """What every linear layer of decoder layer `number` sees, by its name inside the layer.

    arguments: as `embed` returns them for the sampled sequences.
    """
    inputs: dict[str, list[Tensor]] = {}
    gradients: dict[str, list[Tensor]] = {}
    handles = []
    for name, linear in layer_linears(layer, architecture).items():
        inputs[name], gradients[name] = [], []

        def observe(
            _: Any, args: Any, output: Tensor, into: Any = (inputs[name], gradients[name])
        ) -> None:
            into[0].append(args[0].detach()[0])
            output.register_hook(lambda gradient: into[1].append(gradient[0]))

        handles.append(linear.register_forward_hook(observe))
    try:
        for index in range(len(found.samples)):
            state = found.states[number].read(index, device).requires_grad_(True)
            of_layer(layer, state, found, arguments, number, index, None)
    finally:
        for handle in handles:
            handle.remove()
    return {name: Seen(torch.cat(inputs[name]), torch.cat(gradients[name])) for name in inputs}
