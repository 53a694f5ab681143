"""What every decoder layer gets during calibration: hidden states on disk, and other arguments."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from radquant.checkpoints.streaming import fill
from radquant.errors import UserError
from radquant.families.lookup import family_of
from radquant.files import hash_path, recorded_path
from radquant.quantization.original_model import Original
from radquant.quantization.samples import Sample
from radquant.vision.handing import hand_out, handed


@dataclass(frozen=True)
class Hidden:
    """Hidden states of every calibration sequence, one after another, float32, in one raw file."""

    path: Path
    lengths: tuple[int, ...]  # tokens of each sequence
    width: int

    def read(self, index: int, device: torch.device) -> Tensor:
        """[1, tokens, width] float32."""
        count, skipped = self.lengths[index] * self.width, sum(self.lengths[:index]) * self.width
        values = np.fromfile(self.path, np.float32, count, offset=4 * skipped)
        return torch.from_numpy(values).view(1, -1, self.width).to(device)

    def remove(self) -> None:
        """Remove the file and the record of it, if they are there."""
        hash_path(self.path).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """A file to `append` to, which takes its place when all is written."""
        with recorded_path(self.path) as part, open(part, "wb") as file:
            yield file


def append(file: BinaryIO, hidden: Tensor) -> None:
    file.write(hidden.float().cpu().contiguous().numpy().tobytes())


# Keyword arguments of each decoder layer, for each sequence: [sequence][layer].
LayerArguments = list[list[dict[str, Any]]]


def as_float32(value: Any, device: torch.device) -> Any:
    """Move tensors inside `value` to `device`, floating ones to float32."""
    if isinstance(value, Tensor):
        return value.to(device, torch.float32 if value.is_floating_point() else value.dtype)
    if isinstance(value, tuple):
        return tuple(as_float32(each, device) for each in value)
    return value


def embed(
    source: Original,
    samples: Sequence[Sample],
    hidden: Hidden,
    device: torch.device,
    enter: Callable[[Tensor], Tensor] | None = None,
) -> LayerArguments:
    """Write the first decoder layer's inputs and return all layers' other arguments.

    enter: what becomes of embedded tokens and images before they go in. The embedding may be large:
    of its table only the rows of the samples' tokens are in float32.
    """
    path = source.architecture.decoder_layers
    parent = path.rpartition(".")[0]
    decoder, layers = source.model.get_submodule(parent), source.model.get_submodule(path)
    assert isinstance(layers, nn.ModuleList)
    outside = {
        own.removeprefix(f"{parent}."): source.stored[stored]
        for stored, own in source.own_names.items()
        if own.startswith(f"{parent}.") and not own.startswith(f"{path}.")
    }
    embedding = decoder.get_input_embeddings()  # type: ignore[operator]
    fill(decoder, outside, torch.device("cpu"), keep=embedding)
    whole = source.model if any(sample.images for sample in samples) else None
    with rows_in_float32(embedding):
        arguments = first_inputs(decoder, layers, samples, hidden, device, enter, whole)
    for module in decoder.children():
        if module is not layers:
            module.to("meta")
    return arguments


@contextmanager
def rows_in_float32(embedding: nn.Embedding) -> Iterator[None]:
    """Meanwhile let an embedding's own code see float32 copies of the rows that it is asked for.

    A class may do more than look rows up: Gemma's multiplies them by a factor, which it rounds to
    the dtype of the table.
    """
    table, padding, forward = embedding.weight, embedding.padding_idx, embedding.forward

    def look_up(ids: Tensor) -> Tensor:
        used, places = ids.unique(return_inverse=True)
        embedding.weight = nn.Parameter(table[used].float(), requires_grad=False)
        return forward(places)

    embedding.padding_idx = None  # of the whole table; it matters to gradients alone
    embedding.forward = look_up  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        embedding.weight, embedding.padding_idx = table, padding
        vars(embedding).pop("forward", None)


class _Captured(Exception):
    pass


def parameters(layer: nn.Module) -> list[str]:
    """The names of what a decoder layer's forward takes."""
    return [name for name in signature(type(layer).forward).parameters if name != "self"]


@torch.inference_mode()
def first_inputs(
    decoder: nn.Module,
    layers: nn.ModuleList,
    samples: Sequence[Sample],
    hidden: Hidden,
    device: torch.device,
    enter: Callable[[Tensor], Tensor] | None = None,
    whole: nn.Module | None = None,
) -> LayerArguments:
    """Write what the first layer gets for each sample to `hidden`; return the other arguments.

    decoder: the module that embeds tokens and calls `layers`; its own weights are filled, those of
    the layers are not needed. enter: what becomes of embedded tokens and images before they go in.
    whole: the model around `decoder`, which puts images into their places, if there are any. Layers
    may differ in their arguments (sliding and full attention, two rotary bases), so each layer's
    own are kept. Without images they depend on the sequence's length alone, which is checked.
    """
    arguments: LayerArguments = []
    of_length: dict[int, list[dict[str, Any]]] = {}
    seen: list[dict[str, Any]] = []
    states: list[Tensor] = []
    moved: dict[int, Any] = {}  # layers share tensors: one copy of each, by its id

    def skip(*args: Any, **kwargs: Any) -> Tensor:
        entering = args[0] if args else kwargs.pop("hidden_states")
        if not seen:
            states.append(entering)
        if len(seen) == len(layers):
            return entering  # type: ignore[no-any-return]  # an unknown way of calling: see below
        kwargs |= dict(zip(parameters(layers[len(seen)])[1:], args[1:], strict=False))
        for value in kwargs.values():
            if id(value) not in moved:
                moved[id(value)] = as_float32(value, device)
        seen.append({name: moved[id(value)] for name, value in kwargs.items()})
        if len(seen) == len(layers):
            raise _Captured
        return entering  # type: ignore[no-any-return]

    def in_float32(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        embedded = kwargs["inputs_embeds"].float()
        return args, {**kwargs, "inputs_embeds": embedded if enter is None else enter(embedded)}

    handle = decoder.register_forward_pre_hook(in_float32, with_kwargs=True)
    try:
        for layer in layers:
            layer.forward = skip  # type: ignore[method-assign]
        if whole is not None:
            hand_out(whole)
        with hidden.writing() as file:
            for sample in samples:
                seen, states, moved = [], [], {}
                with suppress(_Captured):
                    if sample.images:
                        assert whole is not None
                        whole.model(**shown(whole, sample), use_cache=False)  # type: ignore[operator]
                    else:
                        embedded = decoder.get_input_embeddings()(sample.ids[None])  # type: ignore[operator]
                        decoder(inputs_embeds=embedded, use_cache=False)
                if len(seen) != len(layers) or states[0].dim() != 3:
                    raise UserError(
                        f"the model calls its {len(layers)} decoder layers in a way that is not "
                        "understood; it cannot be quantized yet"
                    )
                append(file, states[0])
                if sample.images:
                    arguments.append(seen)
                    continue
                arguments.append(known := of_length.setdefault(len(sample), seen))
                if not all(same(a, b) for a, b in zip(known, seen, strict=True)):
                    raise UserError(
                        "the model gives its decoder layers arguments that depend on the text; it "
                        "cannot be quantized yet"
                    )
    finally:
        handle.remove()
        for layer in layers:
            # The method of the class is visible again without this one. A bound method put here
            # would be a cycle, and keep a finished layer in memory until Python looks for cycles.
            vars(layer).pop("forward", None)
    return arguments


def shown(whole: Any, sample: Sample) -> dict[str, Tensor]:
    """What a model is given for a sample with images, which `hand_out` lets it take as features."""
    assert sample.types is not None
    if any(image.layers for image in sample.images):
        raise UserError(
            f"models of type {whole.config.model_type!r} add what they see between decoder layers, "
            "which calibration does not follow yet; set calibration.images to false"
        )
    inputs = {"input_ids": sample.ids[None], "attention_mask": torch.ones_like(sample.ids)[None]}
    inputs |= handed(sample.images, torch.device("cpu"), torch.float32)
    family = family_of(whole.config.model_type).images
    if family is not None and family.token_types:
        inputs[family.token_types] = sample.types[None]
    return inputs


def same(a: Any, b: Any) -> bool:
    """Whether two layers' arguments are equal, tensors by value."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.shape == b.shape and torch.equal(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    plain = isinstance(a, (bool, int, float, str))
    return a is b or (type(a) is type(b) and (a == b or not plain))


def run_layer(layer: nn.Module, hidden: Tensor, arguments: dict[str, Any]) -> Tensor:
    output = layer(hidden, **arguments)
    return output[0] if isinstance(output, tuple) else output
