"""Loading a model, original or packed, ready to generate."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from radquant.checkpoints.building import (
    build_original,
    build_packed_model,
    read_settings,
    whole,
)
from radquant.checkpoints.experts import Experts
from radquant.checkpoints.finite_weights import require_finite_model
from radquant.checkpoints.fitting import (
    check_fit,
    drop_unknown_padding,
    empty_model,
    found_names,
    model_class,
    open_config,
)
from radquant.checkpoints.gguf_model import build_gguf_model
from radquant.checkpoints.parts import is_language, without_vision
from radquant.checkpoints.writing import verify
from radquant.errors import UserError
from radquant.failures import loading
from radquant.families.lookup import check_dtype, family_of
from radquant.model_checks import check_model
from radquant.model_files import StoredTensor, is_gguf, quantization_of, read_config
from radquant.packed.linear import PackedLinear, QuantizedLinear, ValueLinear
from radquant.runtime import activations
from radquant.runtime.head import round_head
from radquant.runtime.layer_names import quantized_layers
from radquant.runtime.runtime_file import Runtime, read_runtime
from radquant.settings.precision import INT, STATIC, Activations, KVCache, LMHead, same_rounding
from radquant.tokenizer_files import read_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Loaded:
    """A model in eval mode on its device, and what is known of it."""

    model: Any  # a transformers language model, or one with images
    tokenizer: Any  # pads on the left
    layers_quantized: int  # packed linear layers
    activation_layers: int  # linear layers that quantize their input
    weight_bytes: int  # parameters and buffers in memory
    kernel: str  # what multiplies by packed weights; "none" without any
    runtime: Runtime  # what the checkpoint brings beside its weights
    kv_cache: KVCache | None  # how keys and values are rounded when they enter the cache
    simulation: activations.ActivationQuantization | None = None  # what rounds activations
    lm_head: PackedLinear | None = None  # the rounded head; `model` holds its values unpacked
    values: int = 0  # quantized layers that lie in memory as values, not packed
    on_disk: bool = False  # whether every step reads the weights from there
    widened: bool = False  # whether activations of 4 bits are multiplied, or kept, as 8


def is_simulated(loaded: Loaded) -> bool:
    """Whether something is rounded that takes as much time and memory as if it were not, or as if
    it were rounded to more bits."""
    rounds = (loaded.simulation, loaded.kv_cache, loaded.lm_head)
    return loaded.values > 0 or loaded.widened or any(each is not None for each in rounds)


def resolve_device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" stands for on this machine."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("there is no CUDA device for device cuda; use auto or cpu")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that `name` stands for; "auto" is bfloat16 on a GPU and float32 on a CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[name]


def load_tokenizer(directory: Path, trust_remote_code: bool = False) -> Any:
    """The directory's tokenizer, padding on the left; its files are checked by their hashes.

    Of them only tokenizer_config.json is a rule's input: a change of the rest is noticed here.
    """
    if not (directory / "tokenizer_config.json").is_file():
        raise UserError(
            f"{directory} has no tokenizer_config.json; put the model's tokenizer there"
        )
    verify(directory, weights=False)
    return read_tokenizer(directory, trust_remote_code)


def load(
    directory: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    rounding: Activations | None = None,
    trust_remote_code: bool = False,
    kv_cache: KVCache | None = None,
    lm_head: LMHead | None = None,
    vision: bool = True,
) -> Loaded:
    """Load an original model or a packed checkpoint from `directory`.

    With `rounding` the input of every packed linear layer that it does not skip is quantized. The
    number of layers that really do so is measured by running a token, and must be all of them. A
    stored prefix and `kv_cache` take effect in the cache that `generation.prefix.begin` makes. With
    `lm_head` the table of the vocabulary is rounded. Without `vision`, what makes features of
    images is neither read nor part of the model, which is handed the features. Raises UserError for
    float16 if activations of such models overflow in it.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would fill the logs
    directory = Path(directory)
    stored = check_model(directory)
    config = open_config(directory, trust_remote_code)
    tokenizer = load_tokenizer(directory, trust_remote_code)
    verify(directory)  # last: it reads all of the weights
    drop_unknown_padding(config)
    check_dtype(directory, config.to_dict(), str(dtype).removeprefix("torch."))
    quantization = getattr(config, "quantization_config", None)
    runtime = Runtime()
    part = whole if vision else is_language
    if quantization:
        with loading(directory):
            runtime = read_runtime(directory, quantization)
    if is_gguf(quantization):
        with loading(directory):
            model = build_gguf_model(config, directory, dtype, trust_remote_code, part)
    elif quantization:
        with loading(directory):
            said = read_settings(directory, quantization)
            rounding = as_stored(said.activations, rounding, "activations", directory)
            kv_cache = as_stored(said.kv_cache, kv_cache, "kv_cache", directory)
            model = build_packed_model(config, directory, dtype, trust_remote_code, part)
            scales: Any = model.cache_scales
            runtime = replace(runtime, cache_scales=scales)
    elif not vision:
        with loading(directory):
            model = build_original(config, directory, dtype, trust_remote_code, is_language)
    else:
        empty = empty_model(config, trust_remote_code)
        check_fit(empty, stored, directory)
        renamed_alone = is_as_stored(empty, stored, directory)
        with loading(directory):
            build = build_original if renamed_alone else read_original
            model = build(config, directory, dtype, trust_remote_code)
    if not vision:
        without_vision(model)
    require_finite_model(model, directory, dtype)
    model = model.eval().requires_grad_(False).to(device)
    packed = {name: m for name, m in model.named_modules() if isinstance(m, QuantizedLinear)}
    touched, simulation = 0, None
    if rounding is not None:
        touched, simulation = attach_activations(model, packed, rounding, runtime, directory)
    if kv_cache is not None and not packed:
        raise UserError(f"{directory} is the original, whose cache stays as it is; remove kv_cache")
    if lm_head is not None and not packed:
        raise UserError(f"{directory} is the original, whose head stays as it is; remove lm_head")
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        layers_quantized=len(packed),
        activation_layers=touched,
        weight_bytes=weight_bytes(model),
        kernel="reference" if packed else "none",
        simulation=simulation,
        runtime=runtime,
        kv_cache=kv_cache,
        lm_head=None if lm_head is None else round_head(model, lm_head),
        values=sum(isinstance(each, ValueLinear) for each in packed.values()),
    )


def is_as_stored(model: Any, stored: Mapping[str, StoredTensor], directory: Path) -> bool:
    """Whether an original's tensors become its class's by another name and dtype alone.

    model: an empty one.
    """
    _, _, converted = found_names(model, stored, directory)
    apart = any(isinstance(module, Experts) for module in model.modules())
    kept = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    return not (converted or apart or any(getattr(model, name, None) for name in kept))


def read_original(
    config: Any, directory: Path, dtype: torch.dtype, trust_remote_code: bool, **placing: Any
) -> Any:
    """An original model as its class's own `from_pretrained` reads it.

    All of its tensors are parts of one mapped file, or are copies while that is still mapped: it
    takes more memory than `build_original`. placing: what from_pretrained is told of where to put
    its parts. Raises UserError if a weight is missing.
    """
    with loading(directory):
        model, found = model_class(config).from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            **placing,
        )
    if found["missing_keys"]:  # which transformers fills with random numbers
        raise UserError(
            f"{directory} has no weights for {min(found['missing_keys'])}; fetch or save the "
            "model again"
        )
    return model


def as_stored(own: Any, asked: Any, key: str, directory: Path) -> Any:
    """What is rounded at run time: what the checkpoint says, or else what is asked for."""
    if own is None or asked is None or same_rounding(own, asked):
        return asked if own is None else own
    raise UserError(
        f"{directory} says itself how its {key} are rounded, and the precision says otherwise; "
        f"leave {key} out"
    )


def stored_rounding(directory: Path) -> tuple[Activations | None, KVCache | None]:
    """What a checkpoint itself says of its layers' inputs and its cache: that is what runs."""
    quantization = quantization_of(read_config(directory), directory)
    if quantization is None or is_gguf(quantization):  # which speaks of weights alone
        return None, None
    said = read_settings(directory, quantization)
    return said.activations, said.kv_cache


def attach_activations(
    model: nn.Module,
    packed: dict[str, QuantizedLinear],
    rounding: Activations,
    runtime: Runtime,
    directory: Path,
) -> tuple[int, activations.ActivationQuantization]:
    if not packed:
        raise UserError(
            f"{directory} has no packed linear layer whose activations could be quantized; "
            "name a quantized checkpoint for this precision"
        )
    static = None
    packed = {name: layer for name, layer in packed.items() if not layer.keeps_input}
    beside = any(layer.input_scale is not None for layer in packed.values())
    if rounding.range == STATIC and (rounding.type != INT or beside):
        static = stored_beside(packed, rounding, directory)
    elif rounding.range == STATIC:
        if not same_rounding(runtime.activations, rounding):
            raise UserError(
                f"{directory} has no static ranges for these activations; give its checkpoint the "
                "same activations as the precision"
            )
        device = next(model.parameters()).device
        static = {name: activations.on_device(g, device) for name, g in runtime.static.items()}
    # A token of text, by which layers are counted, does not pass through the vision part.
    config: Any = model.config
    read = is_language(model) if family_of(config.model_type).images else (lambda name: True)
    expected = sum(read(f"{n}.weight") for n in quantized_layers([*packed], rounding))
    simulation = activations.attach(model, packed, rounding, static)
    touched = activations.probe(model, simulation)
    if touched != expected:
        raise UserError(
            f"{touched} of the {expected} packed layers of {directory} quantize their input; "
            "this architecture's layers are not all called as modules"
        )
    return touched, simulation


def stored_beside(
    layers: Mapping[str, QuantizedLinear], rounding: Activations, directory: Path
) -> dict[str, activations.Grid]:
    """The static scales of inputs that lie beside the weights."""
    found = {}
    for name, layer in layers.items():
        scale, zero = layer.input_scale, layer.input_zero
        if scale is None or not bool((scale > 0).all() and scale.isfinite().all()):
            raise UserError(
                f"{directory} has no static range for the input of {name}; give its checkpoint the "
                "same activations as the precision"
            )
        half = 2 ** (rounding.bits - 1)
        zero = torch.zeros_like(scale) if zero is None else zero
        device = next(layer.buffers()).device
        grid = activations.Grid(scale, zero, -half, half - 1)
        found[name] = activations.on_device(grid, device)
    return found


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the model's distinct parameters and buffers in memory."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())
