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
from radquant.verification.reading import Checkpoint, Table
from radquant.verification.selftest import Check

SAME = "values that are not the original's"
# The relative error that two roundings to bfloat16 leave in a tensor that is not quantized.
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
    # The checkpoint may have a head of its own where the original's is tied to the embedding.
    files.setdefault(head, files[own_name(model, model.get_input_embeddings())])
    turned = rotated_parts(source, files, head, rotation)
    for own, stored in files.items():
        layer, change = own.removesuffix(".weight"), turned.get(own)
        if own in checkpoint.tables:
            table = checkpoint.tables[own]
            errors, squares = row_errors(table, stored, change)
            if table.bits is None:
                yield Check(f"{own}: {SAME}", float(errors.amax()), ROUNDED)
            else:
                yield from table_checks(layer, errors, squares, table.bits, fitted)
        elif layer in checkpoint.packed:
            mine = checkpoint.packed[layer]()
            whole = Table(len(mine.weight), mine.weight.__getitem__)
            yield from table_checks(layer, *row_errors(whole, stored, change), mine.bits, fitted)
        elif own in checkpoint.plain:
            aim = stored.load().float()
            aim = aim if change is None else change(aim)
            yield Check(f"{own}: {SAME}", difference(checkpoint.plain[own](), aim), ROUNDED)


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


def row_errors(mine: Table, original: StoredTensor, change: Change | None) -> tuple[Tensor, Tensor]:
    """The relative error of each row, and its squared length, two [rows] float32.

    A checkpoint may lack rows behind the last token. change: what rotation makes of rows.
    """
    errors, squares = [], []
    for start in range(0, mine.count, CHUNK):
        some = slice(start, min(start + CHUNK, mine.count))
        rows, aim = mine.read(some), original.load_rows(some).float()
        aim = aim if change is None else change(aim)
        apart, size = (rows - aim).flatten(1).norm(dim=1), aim.flatten(1).norm(dim=1)
        errors.append(torch.where(apart > 0, apart / size, 0.0))
        squares.append(rows.flatten(1).square().sum(1))
    return torch.cat(errors), torch.cat(squares)


def table_checks(
    name: str, errors: Tensor, squares: Tensor, bits: int, fitted: int | None
) -> Iterator[Check]:
    """A quantized embedding or head: too large to be measured as a linear layer is.

    errors, squares: as `row_errors` gives them.
    """
    bounds = bounds_of(bits, fitted)
    whole = float(((errors.square() * squares).sum() / squares.sum().clamp(min=1e-30)).sqrt())
    yield Check(f"{name}: {distances.WEIGHTS}", whole, bounds.weights)
    yield Check(f"{name}: {distances.ROWS}", float(errors.amax()), max(bounds.row, bounds.weights))
