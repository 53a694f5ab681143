"""Whether the original that is evaluated and the tensors that are quantized are one model.

transformers opens the original for every engine; the quantizer reads its tensors from the files
itself, layer by layer. Both say how likely they find the same few tokens, and must agree. Both
compute in float32, whatever the model is stored in: rounding would hide a wrong norm or scale.
"""

import logging
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.fitting import drop_unknown_padding, open_config
from radquant.checkpoints.loading import load_tokenizer, read_original, resolve_device
from radquant.checkpoints.streaming import fill, give_back
from radquant.errors import UserError
from radquant.families.inspection import decoder_layers
from radquant.quantization.hidden_states import Hidden, LayerArguments, append, first_inputs
from radquant.quantization.original_model import (
    Original,
    open_original,
    require_finite_original,
)
from radquant.quantization.samples import Sample

SEQUENCES, LENGTH, SEED = 4, 24, 19
# The largest difference, in nats a token, to float32 that rounding can make in an engine's dtype.
# In float32 it is about 1e-6.
BOUNDS = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.3}
CPU, FLOAT32 = torch.device("cpu"), "float32"


def check_model(
    directory: Path, device_name: str, trust_remote_code: bool, scratch: Path | None = None
) -> dict[str, Any]:
    """The record of what was compared: the tokens, and the nats of each sequence.

    device_name: "auto", "cpu" or "cuda". scratch: a folder for what is removed again; experts that
    transformers joins take as much of it as they have in float32. Raises UserError unless both read
    the same model. In memory is one layer at a time, and what is outside of them, all in float32.
    """
    device = resolve_device(device_name)
    source = open_original(directory, trust_remote_code)
    require_finite_original(source)
    model: Any = source.model
    words = model.get_input_embeddings().num_embeddings
    sequences = fixed_sequences(directory, words, trust_remote_code)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".check-model-") as folder:
        streamed = streamed_nll(source, sequences, device, Path(folder))
        model.to("meta")
        computed = original_nll(
            source, directory, sequences, device, trust_remote_code, Path(folder)
        )
    found = require_same(directory, "transformers", computed, streamed, FLOAT32)
    return {"dtype": FLOAT32, "sequences": sequences, "nats": streamed, **found}


@torch.inference_mode()
def original_nll(
    source: Original,
    directory: Path,
    sequences: Sequence[Sequence[int]],
    device: torch.device,
    trust_remote_code: bool,
    folder: Path,
) -> list[float]:
    """The nats of each of the sequences by transformers, which reads the files itself.

    folder: for experts, which transformers joins. See `whole_layers` for what is in memory.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would fill the logs
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)  # it warns of "disk"
    config = open_config(directory, trust_remote_code)
    drop_unknown_padding(config)
    placing = {"device_map": places_of(source, str(device)), "offload_folder": folder}
    model = read_original(config, directory, torch.float32, trust_remote_code, **placing)
    whole_layers(model.eval(), source.architecture.decoder_layers, device)
    ids = torch.tensor(sequences)
    logits = model(input_ids=ids.to(device), use_cache=False).logits
    return [nats(*each) for each in zip(logits, ids, strict=True)]


def places_of(source: Original, device: str) -> dict[str, str]:
    """Where transformers is to put each part of the model: on `device`, or nowhere ("disk").

    What is nowhere is read from the files when it is called: decoder layers, and what sees images,
    which no text calls.
    """
    model: Any = source.model
    path, head = source.architecture.decoder_layers, head_of(model)
    parts = path.split(".")
    around = [".".join(parts[:count]) for count in range(len(parts))]  # what holds the layers
    places = {path: "disk"}
    for outer in around:
        module = model.get_submodule(outer)
        for own, _ in (*module.named_children(), *module.named_parameters(recurse=False)):
            name = f"{outer}.{own}".lstrip(".")
            if name not in (*around, path):
                needed = outer == around[-1] or f"{head}.".startswith(f"{name}.")
                places[name] = device if needed else "disk"
    return places


def whole_layers(model: Any, path: str, device: torch.device) -> None:
    """Let each decoder layer read its weights as a whole just before it runs, to drop them behind.

    Else each part would read its own, and a weight that another part computes with has none.
    """
    from accelerate.hooks import attach_align_device_hook, remove_hook_from_submodules

    for number, layer in enumerate(model.get_submodule(path)):
        hooks = [vars(each).get("_hf_hook") for each in layer.modules()]
        files = next(each.weights_map.dataset for each in hooks if getattr(each, "offload", False))
        remove_hook_from_submodules(layer)
        attach_align_device_hook(
            layer,
            device,
            offload=True,
            weights_map=files,
            module_name=f"{path}.{number}",
            preload_module_classes=[type(layer).__name__],
        )
        layer.register_forward_hook(lambda *_: give_back())


def require_same(
    directory: Path,
    who: str,
    computed: Sequence[float],
    streamed: Sequence[float],
    dtype: str,
) -> dict[str, float]:
    """How far two are apart, in nats a token; raises UserError if it is more than rounding.

    computed, streamed: the nats of each sequence, by `who` and as the quantizer reads the model.
    dtype: in which `who` computes; the quantizer's layers compute in float32.
    """
    for name, kind, values in ((who, dtype, computed), ("the quantizer", FLOAT32, streamed)):
        if not all(map(math.isfinite, values)):
            raise UserError(
                f"{directory}: what {name} computes in {kind} is not finite; use another "
                "dtype, or fetch the model again if one of its weights is no number"
            )
    bound = BOUNDS[dtype]
    pairs = zip(computed, streamed, strict=True)
    found = max(abs(one - other) / (LENGTH - 1) for one, other in pairs)
    if found > bound:
        raise UserError(
            f"{directory}: what {who} computes and what the weight files say differ by {found:.3g} "
            f"nats a token, of which {bound:g} may be rounding. The original would be another "
            "model than its checkpoints; save it anew with save_pretrained of the transformers "
            "that runs here"
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
    source: Original, sequences: Sequence[Sequence[int]], device: torch.device, folder: Path
) -> list[float]:
    """The nats of each of the sequences by the tensors in the files. folder: for states."""
    ids = [torch.tensor(each) for each in sequences]
    width = source.config.get_text_config().hidden_size
    hidden = Hidden(folder / "hidden.f32", (LENGTH,) * len(ids), width)
    decoder = fill_outside(source)
    layers = decoder_layers(source.model, source.architecture)
    arguments = first_inputs(decoder, layers, [Sample(each) for each in ids], hidden, device)
    in_tuple = run_layers(source, hidden, arguments, device)
    return [
        sequence_nll(source, each, hidden.read(place, CPU), in_tuple)
        for place, each in enumerate(ids)
    ]


def head_of(model: Any) -> str:
    """The name of what gives each token of the vocabulary its score."""
    scores = model.get_output_embeddings()
    return next(name for name, each in model.named_modules() if each is scores)


def fill_outside(source: Original) -> nn.Module:
    """Fill what is outside of the decoder layers, the head included; the module that runs them."""
    model: Any = source.model
    path = source.architecture.decoder_layers
    parent = path.rpartition(".")[0]
    decoder = model.get_submodule(parent)
    head = head_of(model)
    wanted = {
        own: source.stored[stored]
        for stored, own in source.own_names.items()
        if own.startswith((f"{parent}.", f"{head}.")) and not own.startswith(f"{path}.")
    }
    fill(model, wanted, CPU)
    model.tie_weights()
    return decoder


def run_layers(
    source: Original, hidden: Hidden, arguments: LayerArguments, device: torch.device
) -> bool:
    """Run the decoder layers in float32, `hidden` through all; whether they return a tuple."""
    in_tuple = False
    for number, layer in enumerate(decoder_layers(source.model, source.architecture)):
        stored = source.layer_tensors(number)
        fill(layer, {own: source.stored[name] for own, name in stored.items()}, device)
        layer.to(device, torch.float32)
        with hidden.writing() as written:
            for index in range(len(hidden.lengths)):
                output = layer(hidden.read(index, device), **arguments[index][number])
                in_tuple = isinstance(output, tuple)
                append(written, output[0] if in_tuple else output)
        layer.to("meta")
        give_back()
    return in_tuple


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
