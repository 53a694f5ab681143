"""What of a checkpoint lies outside of the decoder layers, against the original's: embedding, head,
final norm, and all that is for images."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from radquant.model_files import StoredTensor
from radquant.quantization.original_model import Original
from radquant.quantization.rotated_embeddings import own_name
from radquant.quantization.rotation import Rotation, head_of_rotated, rotate_residual
from radquant.verification import distances
from radquant.verification.distances import bounds_of
from radquant.verification.reading import Checkpoint, Linear
from radquant.verification.selftest import Check

SAME = "values that are not the original's"
# Of a tensor that is stored as it was, relative: two roundings to bfloat16.
ROUNDED = 2.0**-7
CHUNK = 8192  # rows of a large table at a time


def difference(mine: Tensor, original: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    apart, size = float((mine - original).abs().amax()), float(original.abs().amax())
    return apart / size if size else (float("inf") if apart else 0.0)


def outside_checks(
    source: Original, checkpoint: Checkpoint, rotation: Rotation | None, fitted: int | None
) -> Iterator[Check]:
    """Embedding, head, final norm, and all that is for images."""
    model: Any = source.model
    path = f"{source.architecture.decoder_layers}."
    parameters = dict(model.named_parameters())
    files = {own: source.stored[name] for name, own in source.own_names.items()}
    files = {own: at for own, at in files.items() if own in parameters and not own.startswith(path)}
    head = own_name(model, model.get_output_embeddings())
    # A head of its own may have been the embedding before.
    files.setdefault(head, files[own_name(model, model.get_input_embeddings())])
    turned = rotated_parts(source, files, head, rotation)
    for own, stored in files.items():
        layer = own.removesuffix(".weight")
        original = stored.load()
        if layer in checkpoint.packed:
            mine = checkpoint.packed[layer]()
            yield from table_checks(layer, mine, original, turned.get(own), fitted)
        elif own in checkpoint.plain:
            found = row_errors(checkpoint.plain[own](), original, turned.get(own))
            yield Check(f"{own}: {SAME}", float(found.amax()), ROUNDED)


Change = Callable[[Tensor], Tensor]


def rotated_parts(
    source: Original, files: Mapping[str, StoredTensor], head: str, rotation: Rotation | None
) -> dict[str, Change]:
    """What rotation makes of rows of the embedding, the head and the final norm, by name."""
    if rotation is None or rotation.signs is None:
        return {}
    model: Any = source.model
    final = source.architecture.final_norm
    assert final is not None
    norm = f"{source.architecture.decoder_layers.rpartition('.')[0]}.{final.name}.weight"
    values, offset = files[norm].load().float(), final.offset
    return {
        own_name(model, model.get_input_embeddings()): partial(rotate_residual, rotation=rotation),
        head: partial(head_of_rotated, norm=values, final=final, rotation=rotation),
        norm: partial(torch.full_like, fill_value=1 - offset),
    }


def row_errors(mine: Tensor, original: Tensor, change: Change | None) -> Tensor:
    """The relative error of each row, [rows]; of all of a vector, [1], in its largest value.

    A checkpoint may lack rows behind the last token. change: what rotation makes of rows.
    """
    if mine.ndim < 2:
        aim = original.float()
        return torch.tensor([difference(mine, aim if change is None else change(aim))])
    found = []
    for start in range(0, len(mine), CHUNK):
        rows = mine[start : start + CHUNK]
        aim = original[start : start + len(rows)].float()
        aim = aim if change is None else change(aim)
        apart, size = (rows - aim).flatten(1).norm(dim=1), aim.flatten(1).norm(dim=1)
        found.append(torch.where(apart > 0, apart / size, 0.0))
    return torch.cat(found)


def table_checks(
    name: str, mine: Linear, original: Tensor, change: Change | None, fitted: int | None
) -> Iterator[Check]:
    """A quantized embedding or head: too large to be measured as a linear layer is."""
    found, bounds = row_errors(mine.weight, original, change), bounds_of(mine.bits, fitted)
    rows = mine.weight.square().sum(1)
    whole = float(((found.square() * rows).sum() / rows.sum().clamp(min=1e-30)).sqrt())
    yield Check(f"{name}: {distances.WEIGHTS}", whole, bounds.weights)
    yield Check(f"{name}: {distances.ROWS}", float(found.amax()), max(bounds.row, bounds.weights))
