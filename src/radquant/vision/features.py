"""Image features on disk: what the language model reads of each image file, computed once.

A folder of them has a table and a record for each job that encoded images. The table
`shard-I-of-N.parquet` has one row an image: the sha256 of its file, that of its features, their
tokens. The record `shard-I-of-N.json` has the vision part and what it cost. The features themselves
lie in a store that several folders share: STORE/KEY/IMAGE.safetensors, where KEY stands for all
that decides their bits beside the image. So images that are encoded already are never encoded
again.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from radquant.errors import UserError
from radquant.files import atomic_path, read_json, read_table
from radquant.image_files import ImageFile

SHARD = re.compile(r"shard-(\d+)-of-(\d+)\.parquet")
EMBEDDINGS, LAYER, INPUT = "embeddings", "layer.", "input."
# What one folder's shards agree on.
IDENTITY = ("key", "vision", "processor", "dtype")


@dataclass(frozen=True)
class ImageFeatures:
    """What the language model reads of one image."""

    embeddings: Tensor  # [tokens, hidden], in the model's dtype: in the place of the image's tokens
    # [tokens, hidden] each: what is added to the image's tokens behind the first decoder layers.
    layers: tuple[Tensor, ...] = ()
    # What the image processor says beside the pixels and the model needs, such as grids. They are
    # by name, with a first dimension of 1 for the one image.
    inputs: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By their names in a file."""
        layers = {f"{LAYER}{place}": each for place, each in enumerate(self.layers)}
        inputs = {f"{INPUT}{name}": each for name, each in self.inputs.items()}
        return {EMBEDDINGS: self.embeddings, **layers, **inputs}

    @property
    def sha256(self) -> str:
        """Of the tensors' names, types, shapes and bytes."""
        return hash_of(self.tensors)


@dataclass(frozen=True)
class Features:
    """The features of many images: of a folder, or encoded in this process."""

    vision: str  # sha256 of the weights that made them
    processor: str  # sha256 of the image processor's settings
    dtype: str  # without "torch."
    directory: Path | None = None  # None: they were encoded in this process
    store: Path | None = None  # the folder of their files
    listed: Mapping[str, str] = field(default_factory=dict)  # {image's sha256: its features'}
    held: Mapping[str, ImageFeatures] = field(default_factory=dict)  # by the image's sha256

    def of(self, image: ImageFile) -> ImageFeatures:
        """The features of an image file, by its bytes.

        Raises UserError, with the report, the column and the file, for an image that is not there.
        """
        self.require(image)
        if image.sha256 in self.held:
            return self.held[image.sha256]
        assert self.store is not None
        path = self.store / f"{image.sha256}.safetensors"
        try:
            found, _ = read_features(path)
        except (SafetensorError, OSError, KeyError) as error:
            found, problem = None, f"cannot be read ({type(error).__name__})"
        else:
            problem = "were changed after they were written (sha256 differs)"
        if found is None or found.sha256 != self.listed[image.sha256]:
            raise UserError(
                f"the features of {image.place} {problem}; delete {path} and {self.directory}, and "
                "run again to encode this image anew"
            )
        return found

    def require(self, image: ImageFile) -> None:
        """Raise UserError unless the image's features are there."""
        if image.sha256 not in self.held and image.sha256 not in self.listed:
            raise UserError(
                f"{image.place} has no features in {self.directory or 'this process'}: it was "
                "changed or added after images were encoded; encode them again "
                "(scripts/encode_images.py)"
            )


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors' names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def write_features(path: Path, features: ImageFeatures, said: Mapping[str, str]) -> None:
    """Write the features of one image. said: what the file says beside them."""
    tensors = {name: each.contiguous() for name, each in features.tensors.items()}
    with atomic_path(path) as part:
        save_file(tensors, part, dict(said))


def read_features(path: Path) -> tuple[ImageFeatures, dict[str, str]]:
    """The features in a file, and what it says beside them."""
    with safe_open(path, framework="pt") as opened:
        said = opened.metadata() or {}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    layers = sorted((n for n in tensors if n.startswith(LAYER)), key=lambda n: int(n[len(LAYER) :]))
    inputs = {n[len(INPUT) :]: tensors[n] for n in tensors if n.startswith(INPUT)}
    return ImageFeatures(tensors[EMBEDDINGS], tuple(tensors[n] for n in layers), inputs), said


def open_features(directory: str | Path) -> Features:
    """The features that `scripts/encode_images.py` left in a folder, of all of its shards.

    Raises UserError unless they are there, all of them, and of one model.
    """
    directory = Path(directory)
    listed: dict[str, str] = {}
    records = []
    for path in shards_in(directory):
        record = read_json(path.with_suffix(".json"))
        table = read_table(path, require=["image", "features"])
        listed |= dict(zip(table["image"], table["features"], strict=True))
        records.append(record)
    first = records[0]
    for record in records:
        if any(record[name] != first[name] for name in IDENTITY):
            raise UserError(
                f"the features in {directory} are of different models, dtypes or machines; delete "
                "the folder and encode the images again"
            )
    said = (first["vision"], first["processor"], first["dtype"])
    return Features(*said, directory, directory / first["store"], listed)


def shards_in(directory: Path) -> list[Path]:
    """The tables of a folder's shards, in order; raises UserError unless they are all there."""
    found = {}
    for path in directory.glob("shard-*.parquet") if directory.is_dir() else ():
        if match := SHARD.fullmatch(path.name):
            found[int(match[1]), int(match[2])] = path
    counts = {count for _, count in found}
    if len(counts) != 1 or len(found) != max(counts):
        names = ", ".join(sorted(path.name for path in found.values())) or "none"
        raise UserError(
            f"{directory} does not hold all shards of one encoding (there: {names}); run "
            "scripts/encode_images.py for each shard"
        )
    return [found[key] for key in sorted(found)]


def check_names(table: Path, record: Path, shard: int, shards: int) -> None:
    """Raise UserError unless a shard's files have the names by which they are found."""
    name = f"shard-{shard}-of-{shards}"
    if (table.name, record) != (f"{name}.parquet", table.with_suffix(".json")):
        raise UserError(
            f"--output {table} and --metrics {record} are not {name}.parquet and {name}.json in "
            "one folder, by which they are found again; rename them"
        )


def remove_other_counts(table: Path) -> None:
    """Remove what encodings into another number of shards left beside a shard's `table`."""
    own = SHARD.fullmatch(table.name)
    for path in table.parent.glob("shard-*"):
        match = SHARD.fullmatch(path.with_suffix(".parquet").name)
        if own and match and match[2] != own[2]:
            path.unlink(missing_ok=True)


def relative(store: Path, directory: Path) -> str:
    """The way from a folder of features to its store: a run may be moved as a whole."""
    return os.path.relpath(store.resolve(), directory.resolve())


def tokens_of(features: ImageFeatures) -> int:
    return int(features.embeddings.shape[0])
