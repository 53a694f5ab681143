"""The stage that encodes the images of reports, for all precisions that share a vision part."""

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers

from radquant.checkpoints.loading import resolve_device, resolve_dtype
from radquant.errors import UserError
from radquant.image_files import ImageFile
from radquant.vision.encoding import COSTS, distinct, encode_to, identity_of
from radquant.vision.features import relative, remove_other_counts
from radquant.vision.part import open_vision


@dataclass(frozen=True)
class Encoding:
    """What is encoded, by what, and where to."""

    model: Path
    files: Sequence[ImageFile]
    device: str  # as in the settings
    dtype: str
    threads: int
    store: Path
    shard: int = 1  # of `shards`, from 1
    shards: int = 1
    trust_remote_code: bool = False


def encode_images(wanted: Encoding, output: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Encode a shard's images: its table for `output` (`vision.features`), and its record.

    Costs are of the encoding itself, whenever it was; loading the model is told apart.
    """
    found = distinct(wanted.files)
    files = [found[sha256] for sha256 in sorted(found)]
    if not 1 <= wanted.shard <= wanted.shards:
        raise UserError(f"there is no shard {wanted.shard} of {wanted.shards}; they count from 1")
    torch.set_num_threads(wanted.threads)
    device = resolve_device(wanted.device)
    started = time.perf_counter()
    vision = open_vision(
        wanted.model, device, resolve_dtype(wanted.dtype, device), wanted.trust_remote_code
    )
    load_seconds = time.perf_counter() - started
    identity = identity_of(vision)
    store = wanted.store / identity["key"]
    mine = files[wanted.shard - 1 :: wanted.shards]
    rows = encode_to(vision, mine, store, "encode images")
    table = pd.DataFrame(rows, columns=["image", "features", "tokens", *COSTS])
    remove_other_counts(output)
    *spent, peak = COSTS
    record = {
        **identity,
        "store": relative(store, output.parent),
        "images": len(rows),
        "tokens": int(table["tokens"].sum()),
        **{name: float(table[name].sum()) for name in spent},
        peak: int(table[peak].max()) if len(rows) else 0,
        "load_seconds": load_seconds,
        "device": device.type,
        "threads": wanted.threads,
        "shard": wanted.shard,
        "shards": wanted.shards,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    kept = table[["image", "features", "tokens"]]
    return kept.astype({"image": "str", "features": "str", "tokens": "int64"}), record
