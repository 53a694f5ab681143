"""The official RadGraph annotator, guarded against what its loader takes for granted.

Imported only in the environment of envs/radgraph.txt: `radgraph` 0.1.18 fails on transformers 5.
"""

import contextlib
import functools
import importlib.metadata
import io
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from radquant import hub_errors
from radquant.code import digest
from radquant.errors import UserError
from radquant.failures import loading, withheld_panics
from radquant.files import read_json, sha256_file, verify_hashes
from radquant.scoring.annotators.kind import Loaded
from radquant.unpacking import DAMAGE, open_tar, unpack_files

HUB_REPOSITORY = "StanfordAIMI/RRG_scorers"
# What the text encoder needs besides its weights, which are inside weights.th.
ENCODER_FILES = ["config.json", "tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt"]


def load(
    model_type: str,
    directory: str | None,
    revision: str = "",
    encoder_revision: str = "",
    threads: int = 1,
) -> Loaded:
    """Load `model_type` from a local folder, or from the hub at both revisions if there is none.

    `directory` holds `<model_type>/` (config.json, vocabulary/, weights.th) or the published
    archive `<model_type>.tar.gz`; the folder is taken if both are there. The text encoder that
    config.json names (`model_name`) is a folder with its config.json and tokenizer files. It lies
    at that path seen from `<model_type>/` or from `directory`, or under its last name in
    `directory`. An archive is unpacked once into `directory`/.unpacked/, or into a temporary folder
    where that cannot be written; nothing is written into a model folder. Nothing is looked up in
    the network when `directory` is given; files that its source.json names must be those that were
    fetched.

    Raises UserError when something is missing, when the archive holds unsafe paths, and when
    weights.th holds anything but tensors.
    """
    if directory is not None:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before anything of Hugging Face is imported
    with contextlib.ExitStack() as stack:
        if directory is None:
            model = _from_hub(model_type, revision, stack)
        else:
            model = _from_directory(model_type, Path(directory), stack)
        require_model(model)
        encoder = _encoder(model, Path(directory) if directory else None, encoder_revision)
        if directory is not None:
            _verify(model_type, Path(directory))
        # These imports take seconds, so they come after the files were checked.
        import torch
        from radgraph import RadGraph

        torch.set_num_threads(threads)
        identity = (
            f"radgraph {importlib.metadata.version('radgraph')} {model_type} "
            f"(sha256 {sha256_file(model / 'weights.th')[:12]})"
        )
        key = _key(model_type, model, encoder)
        cache = _working_copy(model, model_type, encoder, stack)
        # The package prints to stdout. It restricts pickled weights to tensors only on a CPU.
        with contextlib.redirect_stdout(sys.stderr), loading(model, "take the published files"):
            network = open_network(RadGraph, model_type, model, cache)
    return Loaded(identity, functools.partial(_annotate, network, model_type), key)


def open_network(kind: Any, model_type: str, model: Path, cache: Path) -> Any:
    """A network of the package's class `kind`, whose weights are all numbers.

    model: the folder that was given, for messages. cache: the copy that is read.
    """
    from radquant.finite import first_not_finite, is_finite

    weights = model / "weights.th"
    try:
        network = kind(model_type=model_type, model_cache_dir=str(cache), cuda=-1)
    except pickle.UnpicklingError:
        raise UserError(
            f"{weights} cannot be loaded as plain tensors; take the published file"
        ) from None
    # With scores that are NaN the model would take the first label for all words.
    for name, parameter in network.model.named_parameters():
        if not is_finite(parameter):
            raise UserError(
                f"{weights}: {name} holds {first_not_finite(parameter)}; take the published file"
            )
    return network


def _annotate(
    network: Any, model_type: str, texts: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Have the package annotate one text after the other; several in a pass save no time."""
    import torch

    for text in texts:
        # What the package prints when it fails may hold report text.
        with (
            torch.no_grad(),
            withheld_panics(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            crashes = _has_no_pieces(network, model_type, text)
            found = {} if crashes else network([text])
        if crashes:
            yield text, {"text": "", "entities": {}}
            continue
        if "0" not in found:
            raise RuntimeError("radgraph returned no annotation for a text")
        yield text, {"text": found["0"]["text"], "entities": found["0"]["entities"]}


def _has_no_pieces(network: Any, model_type: str, text: str) -> bool:
    """Say whether `text` crashes the package: one without words, or without word pieces.

    Escaped line ends are no words, and of zero-width characters the tokenizer leaves no pieces.
    """
    from radgraph.allennlp.data.tokenizers import Token
    from radgraph.utils import preprocess_reports

    words = preprocess_reports([text], model_type)[0]["sentences"][0]
    tokens = [Token(network.reader._normalize_word(word)) for word in words]
    indexer = network.reader._token_indexers["bert"]
    return not words or not indexer.tokens_to_indices(tokens, network.model.vocab)["token_ids"]


def _key(model_type: str, model: Path, encoder: Path) -> str:
    """Return in one line what the annotations depend on: files, packages, and this code."""
    files = [model / "weights.th", model / "config.json", *sorted(model.glob("vocabulary/*.txt"))]
    files += sorted(
        path for pattern in ENCODER_FILES for path in encoder.glob(pattern) if path.is_file()
    )
    packages = ("radgraph", "transformers", "tokenizers", "torch", "nltk")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    hashes = [f"{path.name} {sha256_file(path)}" for path in files]
    code = f"code {digest(__name__, within='radquant.scoring')}"
    return "; ".join([model_type, *versions, *hashes, code])


def _from_directory(model_type: str, directory: Path, stack: contextlib.ExitStack) -> Path:
    model = directory / model_type
    archive = directory / f"{model_type}.tar.gz"
    if model.is_dir():
        return model
    if not archive.is_file():
        raise UserError(
            f"{directory} holds neither the folder {model_type}/ nor the archive "
            f"{archive.name}; scripts/fetch_radgraph.py fetches it from the hub"
        )
    return unpack(archive, directory / ".unpacked", stack)


def _from_hub(model_type: str, revision: str, stack: contextlib.ExitStack) -> Path:
    from huggingface_hub import constants

    return unpack(fetch_archive(model_type, revision), Path(constants.HF_HOME) / "radgraph", stack)


def fetch_archive(model_type: str, revision: str) -> Path:
    """Return the published archive, downloaded once into the user's own cache."""
    from huggingface_hub import hf_hub_download

    def fetch() -> str:
        return hf_hub_download(HUB_REPOSITORY, f"{model_type}.tar.gz", revision=revision)

    return Path(download(f"{model_type}.tar.gz of {HUB_REPOSITORY}", fetch))


def download(what: str, download: Callable[[], str]) -> str:
    try:
        return download()
    except Exception as error:
        why, advice = hub_errors.told(error)
        raise UserError(
            f"{what} cannot be downloaded ({why}); {advice}; or take a local folder that "
            "scripts/fetch_radgraph.py made elsewhere"
        ) from error


def unpack(archive: Path, parent: Path, stack: contextlib.ExitStack) -> Path:
    """Return a folder with the content of `archive`: `parent/<name>-<hash>`, unpacked once.

    The folder is filled under another name and renamed, so it is complete or not there, and
    several jobs may do this at once. When `parent` cannot be written, the folder is a temporary
    one that `stack` removes.
    """
    name = archive.name.removesuffix(".tar.gz")
    target = parent / f"{name}-{sha256_file(archive)[:12]}"
    if target.is_dir():
        return target
    try:
        parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    except OSError:
        target = Path(stack.enter_context(tempfile.TemporaryDirectory())) / name
        part = target.with_name(f".{name}")
    try:
        with open(archive, "rb") as file, open_tar(file, str(archive)) as tar:
            unpack_files(tar, part)
        part.chmod(0o755)  # a temporary folder is for its owner alone
        part.rename(target)
    except DAMAGE as error:
        if target.is_dir():  # another job renamed its copy first
            return target
        why = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(
            f"{archive} cannot be unpacked ({why}); make room, or download it again"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def require_model(model: Path) -> None:
    missing = [name for name in ("config.json", "weights.th") if not (model / name).is_file()]
    if not list(model.glob("vocabulary/*.txt")):
        missing.append("vocabulary/*.txt")
    if missing:
        raise UserError(
            f"{model} is no complete RadGraph model, it lacks {', '.join(missing)}; "
            "unpack the published archive again"
        )


def model_names(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the two parts of a config.json whose `model_name` names the text encoder."""
    return [
        config["dataset_reader"]["token_indexers"]["bert"],
        config["model"]["embedder"]["token_embedders"]["bert"],
    ]


def _verify(model_type: str, directory: Path) -> None:
    """Refuse files that were changed since scripts/fetch_radgraph.py fetched them."""
    record = directory / "source.json"
    if record.is_file():
        for entry in (read_json(record).get(model_type) or {}).values():
            if isinstance(entry, dict) and "files" in entry:
                verify_hashes(directory, entry["files"], "fetch it again")


def _encoder(model: Path, directory: Path | None, revision: str = "") -> Path:
    """Return the folder with the text encoder's configuration and tokenizer."""
    name = encoder_name(model)
    candidates = [model / name]
    if directory is not None:
        candidates += [directory / name, directory / Path(name).name]
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate.resolve()
    if directory is not None:
        raise UserError(
            f"the text encoder {name!r} that {model / 'config.json'} names is not in {directory}; "
            f"put its config.json and tokenizer files into {directory / Path(name).name}"
        )
    return fetch_encoder(name, revision)


def fetch_encoder(name: str, revision: str) -> Path:
    """Return the hub's snapshot of the text encoder `name`, without its weights."""
    from huggingface_hub import snapshot_download

    def fetch() -> str:
        return snapshot_download(name, revision=revision, allow_patterns=ENCODER_FILES)

    return Path(download(f"the text encoder {name}", fetch))


def encoder_name(model: Path) -> str:
    """Return what the model's config.json calls its text encoder: a name on the hub, or a path."""
    try:
        names = {part["model_name"] for part in model_names(read_config(model))}
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{model / 'config.json'} is not a RadGraph configuration: it names no text encoder"
        ) from error
    if len(names) != 1:
        raise UserError(f"{model / 'config.json'} names two different text encoders")
    name = str(names.pop())
    if Path(name).name in ("", "..") or not name.isprintable():
        raise UserError(f"{model / 'config.json'} names the text encoder {name[:100]!r}, no name")
    return name


def read_config(model: Path) -> dict[str, Any]:
    path = model / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON; unpack the published archive again") from error


def _working_copy(model: Path, model_type: str, encoder: Path, stack: contextlib.ExitStack) -> Path:
    """Return a temporary folder in the layout that the package loads from.

    The package writes a lock file into the vocabulary, so a read-only folder would fail. It looks
    the encoder up under `model_name`, which is rewritten to the local folder here.
    """
    cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    copy = cache / model_type
    copy.mkdir()
    config = read_config(model)
    for part in model_names(config):
        part["model_name"] = str(encoder)
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (copy / "vocabulary").mkdir()
    for path in (model / "vocabulary").glob("*.txt"):
        shutil.copyfile(path, copy / "vocabulary" / path.name)
    (copy / "weights.th").symlink_to((model / "weights.th").resolve())
    return cache
