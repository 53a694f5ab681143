"""What every export starts from: a packed checkpoint of this program, one layer at a time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from radquant.checkpoints.building import packed_layers, read_settings
from radquant.checkpoints.card import with_dtype_warning
from radquant.checkpoints.writing import CARD, RECORD, copy_rest, verify
from radquant.errors import UserError
from radquant.families.lookup import classes_for
from radquant.files import hash_directory, read_json, write_json
from radquant.model_files import StoredTensor, stored_tensors
from radquant.packed.formats import Settings, check_tensors, unpack
from radquant.packed.grid import QuantizedWeight

EXPORT_RECORD = "export.json"


@dataclass(frozen=True)
class Source:
    """A packed checkpoint that is to be exported."""

    directory: Path
    config: dict[str, Any]  # config.json
    settings: Settings
    layers: dict[str, dict[str, StoredTensor]]  # packed: name, suffix
    plain: dict[str, StoredTensor]

    def weight(self, name: str) -> QuantizedWeight:
        """The integers and grid of one packed layer."""
        tensors = {suffix: stored.load() for suffix, stored in self.layers[name].items()}
        width = self.width(name)
        try:
            check_tensors(tensors, self.settings, *width)
            weight = unpack(tensors, self.settings)
        except UserError as error:
            raise UserError(f"{self.directory}: layer {name} cannot be read: {error}") from None
        if not isinstance(weight, QuantizedWeight) or weight.type != "int":
            raise UserError(f"{self.directory}: layer {name} has no integers; export one that has")
        return weight

    def width(self, name: str) -> tuple[int, int]:
        """Inputs and outputs that the configuration gives a layer."""
        return layer_widths(self.config).get(name.rpartition(".")[2], (0, 0))


def layer_widths(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of a decoder layer's linear layers in models like Llama."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    size = head_size(config)
    queries, keys = heads * size, (config.get("num_key_value_heads") or heads) * size
    return {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def open_source(directory: Path, layout: str, server: str) -> Source:
    """The checkpoint in `directory`; raises UserError if `server` has no such architecture.

    layout: the format of scripts/export.py that `server` reads.
    """
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory} has no config.json; it is not a model directory")
    verify(directory)
    config = read_json(directory / "config.json")
    if not config.get("quantization_config"):
        raise UserError(f"{directory} is not quantized; name a checkpoint of scripts/quantize.py")
    settings = read_settings(directory, config["quantization_config"])
    if len(settings.all_bits) > 1:
        found_bits = " and ".join(map(str, settings.all_bits))
        raise UserError(
            f"{directory} has layers of {found_bits} bits, and {server} takes one number of bits; "
            "quantize with bits that are the same everywhere"
        )
    found = (config.get("architectures") or ["none"])[0]
    classes = classes_for(layout)
    if found not in classes:
        raise UserError(f"{directory} is a {found}; {server} can be given {', '.join(classes)}")
    stored = stored_tensors(directory)
    layers = {
        name: {suffix: stored[tensor] for suffix, tensor in suffixes.items()}
        for name, suffixes in packed_layers(stored, settings).items()
    }
    expected = {
        f"model.layers.{number}.{part}.{name}"
        for number in range(config["num_hidden_layers"])
        for name in layer_widths(config)
        for part in ["mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"]
    }
    if odd := sorted(expected ^ layers.keys()):
        raise UserError(
            f"{directory}: {odd[0]} is {'not ' * (odd[0] in expected)}packed; "
            f"{server} takes checkpoints whose decoder layers' linear layers all are, and no other"
        )
    packed = {tensor.key for tensors in layers.values() for tensor in tensors.values()}
    plain = {name: tensor for name, tensor in stored.items() if name not in packed}
    return Source(directory, config, settings, layers, plain)


def older_config(config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """config.json as transformers 4 reads it, too, without our quantization.

    Release 5 keeps the rotary base in `rope_parameters`, where release 4 does not look: it would
    compute with a base of 10,000.
    """
    changed = {key: value for key, value in config.items() if key != "quantization_config"}
    rotary = dict(config.get("rope_parameters") or {})
    if rotary:
        changed["rope_theta"] = rotary.pop("rope_theta", changed.get("rope_theta", 10000.0))
        kind = rotary.get("rope_type", "default")
        changed["rope_scaling"] = None if kind == "default" else {**rotary, "type": kind}
    name = str(dtype).removeprefix("torch.")
    return {**changed, "dtype": name, "torch_dtype": name}


def in_dtype(source: Source, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors that are not packed, floating ones in `dtype`; refuses what overflows in it."""
    tensors = {}
    for name, stored in source.plain.items():
        tensor = stored.load()
        if tensor.is_floating_point():
            tensor = tensor.to(dtype)
            if not torch.isfinite(tensor).all():
                raise UserError(f"{source.directory}: {name} has values that {dtype} cannot hold")
        tensors[name] = tensor
    return tensors


def write_export(source: Source, part: Path, config: Mapping[str, Any], how: str) -> None:
    """Write everything but the weights into `part`, where the weights lie already.

    how: the model card's section on loading.
    """
    copy_rest(source.directory, part)
    write_json(part / "config.json", dict(config))
    if (source.directory / CARD).is_file():
        card = (source.directory / CARD).read_text(encoding="utf-8")
        loading = f"## Loading\n\n{with_dtype_warning(config, how)}\n\n"
        card = re.sub(r"## Loading\n.*?(?=^## |\Z)", lambda _: loading, card, flags=re.S | re.M)
        (part / CARD).write_text(card, encoding="utf-8")
    made_of = {}
    if (source.directory / RECORD).is_file():
        record = read_json(source.directory / RECORD)
        made_of = {key: record.get(key) for key in ("recipe", "format", "files")}
    files = hash_directory(part, exclude=[EXPORT_RECORD])
    write_json(part / EXPORT_RECORD, {"checkpoint": made_of, "files": files})
