"""Calibration samples as a model is given them: tokens, and what it reads of images among them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from radquant.errors import UserError
from radquant.files import read_table
from radquant.image_files import (
    COLUMN,
    HASHES,
    SEPARATOR,
    TYPES,
    WEIGHT,
    ImageFile,
    image_names,
)
from radquant.runtime.runtime_file import behind_prefix
from radquant.vision.features import ImageFeatures, open_features


@dataclass(frozen=True)
class Sample:
    """One calibration sequence."""

    ids: Tensor  # [tokens] int64
    images: tuple[ImageFeatures, ...] = ()  # in the order of their tokens
    types: Tensor | None = None  # [tokens] int64, 1 for an image's token; None without images
    image_weight: float = 1.0  # what an image's token counts for, where one of text counts 1

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def weights(self) -> Tensor | None:
        """What each token counts for, [tokens] float32; None where all count alike."""
        if self.types is None or self.image_weight == 1:
            return None
        return torch.where(self.types == 1, self.image_weight, 1.0)

    @property
    def of_text(self) -> Tensor:
        """Which tokens are no image's, [tokens] bool."""
        return torch.ones(len(self), dtype=torch.bool) if self.types is None else self.types != 1

    def behind(self, prefix: Sequence[int]) -> "Sample":
        """The sample behind a stored prefix, which is not doubled where both meet."""
        ids = torch.tensor(behind_prefix(prefix, self.ids.tolist()))
        if self.types is None:
            return replace(self, ids=ids)
        more = self.types.new_zeros(len(ids) - len(self))
        return replace(self, ids=ids, types=torch.cat([more, self.types]))


def read_samples(path: Path, features: Path | None = None) -> list[Sample]:
    """The samples that scripts/calibration_set.py wrote.

    features: the folder of the features of their images (scripts/encode_images.py). Raises
    UserError where there are none to read, or an image's features are not there.
    """
    table = read_table(path, require=["input_ids"])
    if not len(table) or any(len(ids) == 0 for ids in table["input_ids"]):
        raise UserError(f"{path} holds no samples or an empty one; make the calibration set again")
    if HASHES not in table.columns:
        return [Sample(torch.tensor(ids, dtype=torch.int64)) for ids in table["input_ids"]]
    if features is None:
        raise UserError(
            f"the samples in {path} show images; give their folder of features by --features "
            "(scripts/encode_images.py makes it), or make a set without images "
            "(calibration.images: false)"
        )
    held = open_features(features)
    samples = []
    for row in table.to_dict("records"):
        names, hashes = image_names(row[COLUMN]), row[HASHES].split(SEPARATOR)
        files = [
            ImageFile(Path(name), str(row["id"]), COLUMN, sha256)
            for name, sha256 in zip(names, hashes, strict=True)
        ]
        samples.append(
            Sample(
                torch.tensor(row["input_ids"], dtype=torch.int64),
                tuple(held.of(file) for file in files),
                torch.tensor(row[TYPES], dtype=torch.int64),
                float(row[WEIGHT]),
            )
        )
    return samples
