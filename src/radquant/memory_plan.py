"""What a job needs of memory, before it begins, and how many sequences fit at once.

Estimates are sums of what must be there. That is weights, keys and values, what one layer computes,
and the scores of the positions that are asked for. They are meant to be right within FACTOR of the
peak that the system then reports. Nothing here needs PyTorch.
"""

import math
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FACTOR = 1.5  # between an estimate and the measured peak, either way
BASE = 500_000_000  # bytes of Python, PyTorch, a tokenizer and tables, on a CPU
SEARCHING = 250_000_000  # and of what a calibrated quantization holds beside weights and statistics
KEPT_FREE = 0.1  # share of what is free that a plan leaves alone
FOR_WEIGHTS = 0.8  # share of what is free that weights may take; batches need the rest
SCALE_BYTES = 2.5  # of a group of packed weights: a scale in 16 bits and a zero point
FLOAT32 = 4
LAYER_VALUES = 8  # of a patch, of the hidden width: residual, norm, queries, keys, values, outputs
LEAN, LLAMA_CPP = "lean", "llama.cpp"  # engines that hold weights in forms of their own
MOUNTS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Widths:
    """Sizes of a language model that decide what a sequence takes."""

    layers: int
    hidden: int
    inner: int  # of the MLP
    heads: int
    cached: int  # key-value heads, of a layer on average where layers differ
    head: int  # channels of a head, the widest one's
    vocabulary: int


def widths_of(config: Any) -> Widths | None:
    """Of a transformers configuration; None where it does not say one of them as a number."""
    text = config.get_text_config()
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    try:
        said = [getattr(text, name, None) for name in (*names, "vocab_size")]
        kept = kept_by_layer(text)
    # A size is missing, or it is transformers' own error for what differs between layers.
    except (AttributeError, TypeError, RuntimeError, ZeroDivisionError):
        return None
    found = [each for each in said if isinstance(each, int)]
    if len(found) < len(said) or not all(isinstance(each, int) for pair in kept for each in pair):
        return None
    layers, hidden, inner, heads, vocabulary = found
    head = max(width for _, width in kept)
    cached = math.ceil(sum(count * width for count, width in kept) / (len(kept) * head))
    return Widths(layers, hidden, inner, heads, cached, head, vocabulary)


def kept_by_layer(text: Any) -> list[tuple[int, int]]:
    """Key-value heads and their channels, of each layer of a text model's configuration.

    Layers of some models differ in them (Gemma 4); their configuration then has one for each layer.
    """
    each = getattr(text, "per_layer_config", None) or [text] * text.num_hidden_layers
    heads = text.num_attention_heads
    return [
        (
            getattr(one, "num_key_value_heads", None) or heads,
            getattr(one, "head_dim", None) or text.hidden_size // heads,
        )
        for one in each
    ]


def cache_bytes(widths: Widths, length: int, item: int) -> int:
    """Keys and values of one sequence in every layer, although a sliding window may drop some.

    length: its tokens at its end. item: bytes of a number.
    """
    return 2 * widths.layers * widths.cached * widths.head * length * item


def row_bytes(widths: Widths, length: int, scored: int, item: int) -> int:
    """Bytes that one sequence of a batch takes beside the weights, in transformers' code.

    scored: positions whose scores are computed at once; of the last of them, two copies in float32.
    Scores come when the layers are done.
    """
    layer = 4 * widths.hidden + 3 * widths.inner + 3 * widths.heads * widths.head
    scores = widths.vocabulary * (scored * item + 2 * FLOAT32)
    return cache_bytes(widths, length, item) + max(length * layer * item, scores)


def batch_bytes(widths: Widths, scored: int) -> int:
    """What a batch takes once: the scores of one sequence at a time, twice in float32."""
    return 2 * FLOAT32 * scored * widths.vocabulary


def batch_for(free: int, each: int) -> int:
    """How many sequences of `each` bytes fit into `free` bytes; at least one, which is tried."""
    return max(1, int((1 - KEPT_FREE) * free / each))


def weights_fit(size: int, free: int) -> bool:
    """Whether copies of weights fit, with room for a batch beside them."""
    return size <= FOR_WEIGHTS * free


def free_bytes(mapped: bool = False) -> int:
    """Memory that a process may still take: of the machine, and of its control groups.

    mapped: whether what is read again and again from files counts as free in a control group. For
    weights in use that would be wrong, as they would have to be read from the disk again.
    """
    with suppress(OSError, AttributeError, ValueError):
        said = Path("/proc/meminfo").read_text()
        found = re.search(r"^MemAvailable:\s+(\d+) kB", said, re.M)
        if found:
            return min(int(found[1]) * 1024, group_free_bytes(mapped))
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def all_bytes() -> int:
    """Memory of this machine, or as much of it as its control groups allow this process."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *(limit for limit, _ in group_limits())])


def group_free_bytes(mapped: bool = False) -> int:
    return min([UNLIMITED, *(limit - used for limit, used in group_limits(mapped=mapped))])


def group_limits(
    mounts: Path = MOUNTS, groups: Path = Path("/proc/self/cgroup"), mapped: bool = False
) -> list[tuple[int, int]]:
    """(limit, used) in bytes of each control group of memory above this process.

    What files take of the cache can be had back, and is not used. So is what is read from them
    again and again, if `mapped`. A container sees its own group at the top. See
    Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux.
    """
    found = []
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds == "":  # version 2
                names = ("memory.max", "memory.current", "")
                top = mounts
            elif "memory" in kinds.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
                top = mounts / "memory"
            else:
                continue
            folder = top / path.strip("/")
            for each in dict.fromkeys([folder, *folder.parents]):
                if each.is_relative_to(top) and (pair := group_limit(each, *names, mapped)):
                    found.append(pair)
    return found


def group_limit(
    folder: Path, limit: str, used: str, total: str, mapped: bool
) -> tuple[int, int] | None:
    with suppress(OSError, ValueError, IndexError):
        most = int((folder / limit).read_text())  # "max" is no number: there is none
        spent = int((folder / used).read_text())
        said = (folder / "memory.stat").read_text()
        cached = "(?:in)?active_file" if mapped else "inactive_file"
        files = sum(map(int, re.findall(rf"^{total}{cached} (\d+)$", said, re.M)))
        return (most, spent - files) if most < UNLIMITED else None
    return None


@dataclass(frozen=True)
class Weights:
    """Parameters of a model by what becomes of them."""

    linear: int  # of the decoder layers' linear layers, which recipes quantize
    other: int  # of the rest of the language model: embeddings, head, norms
    vision: int  # of what sees
    layer: int  # of the largest decoder layer
    matrix: int  # of the largest linear layer
    grams: int  # values of the Gram matrices of one layer's inputs
    table: int  # of the embeddings
    stored: int = 2  # bytes of each in the original's files
    dtype: str = "bfloat16"  # in which they are stored there

    @property
    def language(self) -> int:
        return self.linear + self.other

    @property
    def total(self) -> int:
        return self.language + self.vision

    def packed_bytes(self, bits: float, group: int) -> int:
        """Of the linear layers. group: weights that share a scale; -1 for rows, which are long."""
        each = bits / 8 + (SCALE_BYTES / group if group > 0 else 0)
        return int(self.linear * each)


@dataclass(frozen=True)
class Stored:
    """How a checkpoint's weights are stored."""

    disk: int  # bytes of its files
    linear: int | None = None  # bytes of its quantized linear layers; None: of the original
    values: bool = False  # whether they lie in memory as the values that they stand for
    source: str = ""  # what this is known from, in two words


@dataclass(frozen=True)
class Held:
    """Bytes that a model takes."""

    peak: int  # while it is loaded
    kept: int  # from then on


@dataclass(frozen=True)
class Sight:
    """Sizes of the part of a model that sees, for one image."""

    patches: int
    layers: int
    hidden: int
    inner: int  # of the MLP
    assumed: bool  # whether the image's size follows from no configuration


def image_bytes(sight: Sight, item: int) -> int:
    """What encoding one image takes beside the weights, one layer's values at a time."""
    return sight.patches * (LAYER_VALUES * sight.hidden + 2 * sight.inner) * item


def image_flops(sight: Sight, weights: int) -> float:
    """Multiplications and additions of an image. weights: of the part that sees."""
    attention = 4 * sight.patches**2 * sight.hidden * sight.layers
    return 2.0 * weights * sight.patches + attention


def stored_bytes(weights: Weights, bits: float | None = None, group: int = -1) -> int:
    """Of a checkpoint on disk; of the original without bits."""
    if bits is None:
        return weights.total * weights.stored
    return weights.packed_bytes(bits, group) + (weights.other + weights.vision) * weights.stored


def held_bytes(
    weights: Weights, stored: Stored, item: int, engine: str, gpu: bool, seeing: bool = False
) -> Held:
    """What loading and holding a model takes, in memory of the GPU or of the process.

    item: bytes of a number of the computation. seeing: whether the part that sees is loaded, too,
    as it is where no image is shown.

    A tensor that is computed with as it is stored is a mapped part of its file. Others are copied
    one at a time. The lean engine copies one layer after another into its own form, in 16 bits or
    packed, and frees what it has copied. The table of the vocabulary is the largest of these.
    """
    plain = weights.language if stored.linear is None else weights.other
    quantized = stored.linear or 0
    if stored.linear is not None and stored.values:
        quantized = weights.linear * item
    if gpu:
        size = (plain + seeing * weights.vision) * item + quantized
        return Held(size, size)
    if engine == LLAMA_CPP:  # which maps the file, and knows no part that sees
        size = BASE + stored.disk - weights.vision * weights.stored
        return Held(size, size)
    loaded = BASE + (plain + seeing * weights.vision) * item + quantized
    reading = weights.table * weights.stored if item != weights.stored else 0
    if engine != LEAN:
        return Held(loaded + reading, loaded)
    own = min(item, weights.stored)
    copied = copied_bytes(weights, own * plain + quantized, own)
    return Held(loaded + max(reading, copied), BASE + plain * own + quantized)


def copied_bytes(weights: Weights, size: int, own: int) -> int:
    """What the lean engine holds twice at a time: a layer, and the table of the vocabulary.

    size: bytes of the language model in its form. own: of a number that is not quantized.
    """
    return weights.table * own + int(2 * weights.layer * size / max(weights.language, 1))


def from_disk_bytes(weights: Weights, item: int, dtype: str, peak: int, memory: int) -> int | None:
    """What the lean engine takes of an original that it keeps on the disk, outside of Slurm.

    None where it does not, because the weights fit, or are converted while they are loaded. An
    embedding that is not the head counts, although its file is read in place.
    item, dtype: of a number of the computation. peak: with the weights in memory. memory: all that
    a job may take.
    """
    if (weights.stored, weights.dtype) != (item, dtype):
        return None
    size = weights.stored * weights.language
    if weights_fit(size, memory - BASE) and peak <= memory:
        return None
    return BASE + copied_bytes(weights, size, weights.stored)


def quantizing_bytes(weights: Weights, calibrated: bool) -> int:
    """The peak of this package's own quantization, which holds one layer at a time in float32."""
    if not calibrated:
        return BASE + weights.table * weights.stored + FLOAT32 * (weights.layer + weights.matrix)
    # A layer with its statistics, and of a matrix what rounding makes: with GPTQ's it is more.
    values = weights.layer + weights.grams + 4 * weights.matrix
    return BASE + SEARCHING + weights.table * weights.stored + FLOAT32 * values


def in_gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def told_once(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, but for what it has said already."""
    said: set[str] = set()

    def once(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    return once
