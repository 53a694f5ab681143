"""Which files and tensors are the model: one rule for all that read a Hugging Face directory.

The shards that `model.safetensors.index.json` names, or the one `model.safetensors`. Programs
differ in which of several candidates they take, so a directory that has several is refused.
Nothing here imports PyTorch.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radquant.cli import size
from radquant.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"(pytorch_)?model-\d+-of-\d+\.safetensors")
# Of peft; of MLX; of LLaVA and of diffusers' trainers.
ADAPTERS = (
    *("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"),
    *("adapters.safetensors", "adapters.npz", "lora.safetensors"),
    *("non_lora_trainables.bin", "pytorch_lora_weights.safetensors"),
)
# Where other programs say that keys and values are to be rounded, beside quantization_config.
CACHE_KEYS = ("kv_cache_scheme", "kv_cache_dtype", "kv_cache_quant_algo", "kv_cache_quantization")
MODELOPT = "hf_quant_config.json"
GGUF = "gguf"  # quant_method of a directory whose weights are a GGUF file, and that file's suffix
# Bytes of a tensor up to which it is read. A mapping of it would hold the file's header as well,
# and what lies around the tensor. Of a model of many small ones that is several times their size.
SMALL = 2**20
PICKLED_FILES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
# What goes with the weights. Other text stays where it is: what a training program left beside
# them (predictions, logs) may be of patients.
SMALL_FILES = (
    *("*config*.json", "*token*.json", "*vocab*", "*merges*.txt", "*template*.json", "*.jinja"),
    *("*.model", "*.tiktoken", "tekken.json"),
)
# What a model card says about licence and origin.
LEGAL_FILES = ("README.md", "LICEN[SC]E*", "licen[sc]e*", "NOTICE*", "USE_POLICY*")
CODE_FILES = ("*.py",)
AGAIN = "fetch or save the model again"


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: bytes `begin` … `end` of `file`, a safetensors file."""

    file: Path
    key: str
    dtype: str  # safetensors' name: "F32", "BF16" …
    shape: tuple[int, ...]
    begin: int
    end: int

    def load(self) -> "Tensor":
        """The tensor: a small one read, a large one mapped, which the system can have back."""
        from safetensors import safe_open

        if self.end - self.begin <= SMALL:
            return self.read()
        with safe_open(self.file, framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(self.key)
        return tensor

    def read(self) -> "Tensor":
        """The tensor in memory of its own. What lies around it in the file is not touched."""
        from safetensors.torch import load

        with open(self.file, "rb") as stream:
            stream.seek(self.begin)
            data = stream.read(self.end - self.begin)
        about = {"dtype": self.dtype, "shape": self.shape, "data_offsets": [0, len(data)]}
        header = json.dumps({self.key: about}).encode()
        return load(len(header).to_bytes(8, "little") + header + data)[self.key]

    def load_rows(self, rows: slice) -> "Tensor":
        """Some rows of a matrix; nothing else of it is read."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as opened:
            tensor: Tensor = opened.get_slice(self.key)[rows]
        return tensor


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, without reading them.

    Raises UserError unless the header is sound and its tensors fill the file exactly.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is no whole safetensors file ({error}); {AGAIN}") from None
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    start = 8 + length
    return {
        name: StoredTensor(
            file,
            name,
            entry["dtype"],
            tuple(entry["shape"]),
            *(start + offset for offset in entry["data_offsets"]),
        )
        for name, entry in header.items()
    }


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model.

    Raises UserError for anything else, for NaN, and for a key that stands twice, of which some
    programs take the first and others the last.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{path} has two values of {twice!r}; take one out")
        return found

    def constant(word: str) -> float:
        if word == "NaN":
            raise UserError(f"{path} holds NaN, which is no number; correct it or {AGAIN}")
        return float(word)  # some models' limits are Infinity

    try:
        found = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=once, parse_constant=constant
        )
    except (ValueError, RecursionError, OSError) as error:
        kind = type(error).__name__
        raise UserError(f"{path} cannot be read as JSON ({kind}); {AGAIN}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is no JSON object, but {type(found).__name__}; {AGAIN}")
    return found


def read_config(directory: Path) -> dict[str, Any]:
    """The content of config.json; raises UserError without one."""
    path = directory / CONFIG
    if not path.is_file():
        if path.is_symlink():
            raise UserError(f"{path} is a link to something that is not there; {AGAIN}")
        inside = sorted(directory.glob(f"*/{CONFIG}"))
        hint = f"; there is one in {inside[0].parent}" if inside else ""
        raise UserError(f"{directory} holds no {CONFIG}{hint}; give a Hugging Face model directory")
    return read_object(path)


def quantization_of(config: dict[str, Any], directory: Path) -> dict[str, Any] | None:
    """The `quantization_config` of a config.json; None of an original model."""
    for part in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(part), dict) and config[part].get("quantization_config"):
            raise UserError(
                f"{directory / CONFIG} has its quantization_config inside {part}, where not all "
                "programs look; move it to the top"
            )
    for key in CACHE_KEYS:
        if config.get(key) not in (None, False, "auto", "none"):
            raise UserError(
                f"{directory / CONFIG} says {key}, which is not applied here; take a model without "
                "it, or set kv_cache on a precision of this program instead"
            )
    if (directory / MODELOPT).exists():
        raise UserError(
            f"{directory / MODELOPT} says how ModelOpt quantized the model or its cache, which is "
            "not applied here; take the original model, or a format of docs/quantization.md"
        )
    found = config.get("quantization_config")
    if found is None and config.get("quantization") is not None:
        raise UserError(
            f"{directory / CONFIG} says `quantization`, as MLX does; its weights cannot be read: "
            "take the model in a format of docs/quantization.md, or the original"
        )
    if found is not None and not (isinstance(found, dict) and found):
        raise UserError(
            f"{directory / CONFIG} has a quantization_config that says nothing; take it out, or "
            f"{AGAIN}"
        )
    return found


def is_gguf(config: Mapping[str, Any] | None) -> bool:
    """Whether this quantization_config says that the weights are a GGUF file."""
    return bool(config) and config is not None and config.get("quant_method") == GGUF


def gguf_file(directory: Path, config: Mapping[str, Any]) -> Path:
    """The GGUF file that holds a directory's weights by its quantization_config.

    Raises UserError unless there is exactly this one.
    """
    name = config.get("file")
    if not isinstance(name, str) or name != Path(name).name or not name.endswith(f".{GGUF}"):
        raise UserError(
            f"{directory / CONFIG} says quant_method {GGUF} and the file {name!r}, which is no "
            f".{GGUF} file of this folder; {AGAIN}"
        )
    more = sorted(config.keys() - {"quant_method", "file", "type"})
    if more:
        raise UserError(
            f"{directory / CONFIG} says {more[0]} in quantization_config, which is not applied to "
            f"a {GGUF} file; take it out"
        )
    present = matching(directory, [f"*.{GGUF}"])
    if present != [name]:
        raise UserError(
            f"{directory / CONFIG} says that the weights are {name}, and the {GGUF} files present "
            f"are {', '.join(present) or '(none)'}; put that one there, alone"
        )
    check_links(directory, present)
    return directory / name


# -------------------------------------------------------------------------------------- files


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that hold the model's tensors, sorted; or a GGUF file, and those that
    hold what it has not.

    Raises UserError, with the name of the file that is amiss, where none or several sets could be
    meant. It also does where an adapter is to be added to them.
    """
    for name in ADAPTERS:
        if (directory / name).exists():
            raise UserError(
                f"{directory / name} belongs to an adapter, which would be left out; merge it into "
                "the model (peft: merge_and_unload, then save_pretrained) or remove it"
            )
    present = matching(directory, ["*.safetensors"])
    if (directory / CONFIG).is_file():
        quantization = quantization_of(read_config(directory), directory)
        if quantization is not None and is_gguf(quantization):
            return [gguf_file(directory, quantization), *(directory / name for name in present)]
    shards = [name for name in present if SHARD.fullmatch(name)]
    listing = f"the weight files present are {', '.join(present) or '(none)'}"
    if (directory / INDEX).exists():
        named = sorted(set(weight_map(directory).values()))
        lost = [name for name in named if name not in present]
        if lost:
            stale = f", or remove the index if {SINGLE} is the model" * (SINGLE in present)
            raise UserError(
                f"{directory / INDEX} names {lost[0]}, which is not there; {listing}; fetch it"
                f"{stale}"
            )
        other = [name for name in (SINGLE, *shards) if name in present and name not in named]
        if other:
            raise UserError(
                f"{directory / other[0]} is not among the files that {INDEX} names, so programs "
                "would read different models; remove it, or the index and the files it names"
            )
        return [directory / name for name in named]
    if SINGLE in present and not shards:
        return [directory / SINGLE]
    if shards:
        beside = f" beside {SINGLE}" if SINGLE in present else ""
        raise UserError(
            f"{directory / shards[0]} is a part of a model{beside}, and no {INDEX} says which "
            "parts belong to it; fetch the index, or remove what is stale"
        )
    if len(present) == 1 and quantization_of(read_config(directory), directory):
        return [directory / present[0]]  # AutoGPTQ named it after bits and group size
    if present:
        raise UserError(
            f"{directory} has no weight file {SINGLE}; {listing}; name the model's own {SINGLE}"
        )
    if pickled := matching(directory, PICKLED_FILES):
        raise UserError(
            f"{directory} holds only pickled weights ({pickled[0]}), which can run code when they "
            "are loaded; convert them once with save_pretrained, which writes safetensors"
        )
    raise UserError(f"{directory} holds no {SINGLE}; {AGAIN}")


def weight_map(directory: Path) -> dict[str, str]:
    """{tensor: file} as the index says; raises UserError for an index that says nothing."""
    path = directory / INDEX
    found = read_object(path).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise UserError(f"{path} has no weight_map of tensors and files; {AGAIN}")
    for tensor, name in found.items():
        plain = isinstance(name, str) and name == Path(name).name
        if not plain or not name.endswith(".safetensors"):
            raise UserError(
                f"{path} says that {tensor} lies in {name!r}, which is no .safetensors file of "
                f"this folder; {AGAIN}"
            )
    return found


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of the model in a directory, by its stored name; but for those in a GGUF file.

    Raises UserError as `weight_files` does, and where index and files disagree.
    """
    files = [file for file in weight_files(directory) if file.suffix != f".{GGUF}"]
    check_links(directory, [path.name for path in files])
    found: dict[str, StoredTensor] = {}
    for file in files:
        header = read_header(file)
        twice = sorted(found.keys() & header.keys())
        if twice:
            raise UserError(
                f"{twice[0]} stands in {found[twice[0]].file.name} and in {file}; {AGAIN}"
            )
        found |= header
    if (directory / INDEX).exists():
        named = weight_map(directory)
        for tensor in sorted(named.keys() ^ found.keys()):
            said = "lacks" if tensor in named else "does not name"
            where = directory / named[tensor] if tensor in named else directory / INDEX
            of = INDEX if tensor in named else found[tensor].file.name
            raise UserError(f"{where} {said} {tensor}, which {of} has; {AGAIN}")
        moved = [name for name, file in named.items() if found[name].file.name != file]
        if moved:
            raise UserError(
                f"{directory / INDEX} says that {moved[0]} lies in {named[moved[0]]}, and it lies "
                f"in {found[moved[0]].file.name}; {AGAIN}"
            )
    return found


def sizes(directory: Path, other: Path | None = None, whose: str = "") -> str:
    """What the weights in a directory take, in words, beside what those in another do."""
    found = f"{size(_bytes(directory))} of weights"
    return found if other is None else f"{found}, where {whose} has {size(_bytes(other))}"


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(directory))


# ------------------------------------------------------------------------------- files beside


def matching(directory: Path, patterns: Sequence[str]) -> list[str]:
    """The names of the files in a directory that match any of the patterns, sorted."""
    found = {path.name for pattern in patterns for path in directory.glob(pattern)}
    return sorted(name for name in found if (directory / name).is_file())


def files_beside(directory: Path, code: bool = False) -> list[str]:
    """The names of what belongs to a model beside its weights: configuration, tokenizer, licence.

    code: also the program code that it brings.
    """
    names = matching(directory, (*SMALL_FILES, *LEGAL_FILES, *(CODE_FILES if code else ())))
    weights = (".safetensors", ".index.json")
    return [name for name in names if name not in ADAPTERS and not name.endswith(weights)]


# -------------------------------------------------------------------------------------- links


def check_links(directory: Path, names: list[str]) -> None:
    """Raise UserError if one of these files is a link that leads out of its folder.

    Their content would be copied, into checkpoints that are published, too. Links of the Hugging
    Face cache into the blobs of the same repository are what its snapshots are made of.
    """
    own = directory.resolve()
    inside = [f"{own}{os.sep}"]
    if own.parent.name == "snapshots" and own.parents[1].name.startswith("models--"):
        inside.append(f"{own.parents[1] / 'blobs'}{os.sep}")
    for name in names:
        path = directory / name
        if not path.is_symlink():
            continue
        target = os.path.realpath(path)
        if os.path.isdir(target):
            continue  # no folder is ever gone into
        if not target.startswith(tuple(inside)):
            raise UserError(
                f"{path} is a link that leads out of its folder; put the file itself there, or "
                "take the link away"
            )
        if not os.path.isfile(target):
            raise UserError(f"{path} is a link to something that is not there; {AGAIN}")
