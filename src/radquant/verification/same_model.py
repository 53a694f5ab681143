"""Whether the original that is evaluated and the tensors that are quantized are one model.

transformers opens the original for every engine; the quantizer reads its tensors from the files
itself, layer by layer. Both say how likely they find the same few tokens, and must agree.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.loading import load, load_tokenizer, resolve_device, resolve_dtype
from radquant.checkpoints.streaming import fill
from radquant.errors import UserError
from radquant.families.inspection import decoder_layers
from radquant.quantization.hidden_states import Hidden, LayerArguments, append, first_inputs
from radquant.quantization.original_model import Original, open_original
from radquant.quantization.samples import Sample

SEQUENCES, LENGTH, SEED = 4, 24, 19
# The largest difference, in nats a token, that rounding can make in the dtype of the computation.
# In float32 it is about 1e-6; in 16 bits an engine may round less often than the layers do.
BOUNDS = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.3}
CPU = torch.device("cpu")


def check_model(
    directory: Path, device_name: str, trust_remote_code: bool, dtype_name: str = "auto"
) -> dict[str, Any]:
    """The record of what was compared: the tokens, and the nats of each sequence.

    device_name: "auto", "cpu" or "cuda". dtype_name: that of the run's computation, in which the
    whole original is loaded here: a float32 copy of a large model may not fit. Raises UserError
    unless both read the same model. One layer is in memory at first, and then the whole original.
    """
    device = resolve_device(device_name)
    dtype = resolve_dtype(dtype_name, device)
    sequences, streamed = streamed_nll(directory, device, dtype, trust_remote_code)
    model = load(directory, device, dtype, trust_remote_code=trust_remote_code).model
    with torch.inference_mode():
        computed = [
            nats(model(input_ids=ids[None].to(device), use_cache=False).logits[0], ids)
            for ids in map(torch.tensor, sequences)
        ]
    name = str(dtype).removeprefix("torch.")
    found = require_same(directory, "transformers", computed, streamed, name, name)
    return {"dtype": name, "sequences": sequences, "nats": streamed, **found}


def require_same(
    directory: Path,
    who: str,
    computed: Sequence[float],
    streamed: Sequence[float],
    *dtypes: str,
) -> dict[str, float]:
    """How far two are apart, in nats a token; raises UserError if it is more than rounding.

    computed, streamed: the nats of each sequence, by `who` and as the quantizer reads the model.
    dtypes: in which they were computed.
    """
    for name, values in ((who, computed), ("the quantizer", streamed)):
        if not all(map(math.isfinite, values)):
            raise UserError(
                f"{directory}: what {name} computes in {dtypes[0]} is not finite; use another "
                "dtype, or fetch the model again if one of its weights is no number"
            )
    bound = max(BOUNDS[dtype] for dtype in dtypes)
    pairs = zip(computed, streamed, strict=True)
    found = max(abs(one - other) / (LENGTH - 1) for one, other in pairs)
    if found > bound:
        raise UserError(
            f"{directory}: what {who} computes and what the tensors in the weight files say, as "
            f"they are quantized, differ by {found:.3g} nats a token (at most {bound:g} is "
            "rounding), so the original would be another model than its checkpoints; save the "
            "model anew with save_pretrained of the transformers that runs here"
        )
    return {"difference": found, "bound": bound}


def nats(logits: Tensor, ids: Tensor) -> float:
    """−log p of a sequence behind its first token. logits: [tokens, words]; ids: [tokens]."""
    chosen = logits[:-1].float().cpu().log_softmax(-1).gather(-1, ids[1:, None])
    return -float(chosen.double().sum())


def fixed_sequences(directory: Path, words: int, trust_remote_code: bool) -> list[list[int]]:
    """The same few tokens for every run of a model: of its vocabulary, without special ones.

    words: in the table of its embedding, which may hold fewer than the tokenizer knows.
    """
    tokenizer = load_tokenizer(directory, trust_remote_code)
    usual = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    usual = [token for token in usual if token < words] or list(range(words))
    generator = torch.Generator().manual_seed(SEED)
    places = torch.randint(len(usual), (SEQUENCES, LENGTH), generator=generator).tolist()
    return [[usual[place] for place in row] for row in places]


@torch.inference_mode()
def streamed_nll(
    directory: Path, device: torch.device, dtype: torch.dtype, trust_remote_code: bool
) -> tuple[list[list[int]], list[float]]:
    """The fixed sequences, and the nats of each by the tensors in the files."""
    source = open_original(directory, trust_remote_code)
    embedding: Any = source.model.get_input_embeddings()  # type: ignore[operator]
    sequences = fixed_sequences(directory, embedding.num_embeddings, trust_remote_code)
    ids = [torch.tensor(each) for each in sequences]
    width = source.config.get_text_config().hidden_size
    with tempfile.TemporaryDirectory() as folder:
        hidden = Hidden(Path(folder) / "hidden.f32", (LENGTH,) * len(ids), width)
        decoder = fill_outside(source)
        layers = decoder_layers(source.model, source.architecture)
        arguments = first_inputs(decoder, layers, [Sample(each) for each in ids], hidden, device)
        in_tuple = run_layers(source, hidden, arguments, device, dtype)
        return sequences, [
            sequence_nll(source, each, hidden.read(place, CPU), in_tuple)
            for place, each in enumerate(ids)
        ]


def fill_outside(source: Original) -> nn.Module:
    """Fill what is outside of the decoder layers, the head included; the module that runs them."""
    model: Any = source.model
    path = source.architecture.decoder_layers
    parent = path.rpartition(".")[0]
    decoder = model.get_submodule(parent)
    scores = model.get_output_embeddings()
    head = next(name for name, each in model.named_modules() if each is scores)
    wanted = {
        own: source.stored[stored]
        for stored, own in source.own_names.items()
        if own.startswith((f"{parent}.", f"{head}.")) and not own.startswith(f"{path}.")
    }
    fill(model, wanted, CPU)
    model.tie_weights()
    return decoder


def run_layers(
    source: Original,
    hidden: Hidden,
    arguments: LayerArguments,
    device: torch.device,
    dtype: torch.dtype,
) -> bool:
    """Run the decoder layers in turn, `hidden` through all; whether they return a tuple."""
    in_tuple = False
    for number, layer in enumerate(decoder_layers(source.model, source.architecture)):
        stored = source.layer_tensors(number)
        fill(layer, {own: source.stored[name] for own, name in stored.items()}, device)
        layer.to(device, dtype)
        with hidden.writing() as written:
            for index in range(len(hidden.lengths)):
                entering = hidden.read(index, device).to(dtype)
                output = layer(entering, **in_dtype(arguments[index][number], dtype))
                in_tuple = isinstance(output, tuple)
                append(written, output[0] if in_tuple else output)
        layer.to("meta")
    return in_tuple


def in_dtype(value: Any, dtype: torch.dtype) -> Any:
    """A layer's arguments with floating tensors in `dtype`."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(in_dtype(each, dtype) for each in value)
    if isinstance(value, dict):
        return {name: in_dtype(each, dtype) for name, each in value.items()}
    return value


def sequence_nll(source: Original, ids: Tensor, last: Tensor, in_tuple: bool) -> float:
    """−log p of a sequence behind its first token, whose last layer's output is known.

    The model's own code does what comes after the layers. last: [1, tokens, width] float32.
    """
    layers = decoder_layers(source.model, source.architecture)
    for layer in layers:
        output = (last,) if in_tuple else last
        layer.forward = lambda *_, _output=output, **__: _output  # type: ignore[method-assign]
    logits = source.model(input_ids=ids[None], use_cache=False).logits[0]
    for layer in layers:
        vars(layer).pop("forward", None)
    return nats(logits, ids)
