"""What each precision of a run will take: memory, disk and time, before anything is downloaded."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from radquant import memory_plan
from radquant.checkpoints.loading import DTYPES
from radquant.checkpoints.model_sizes import Sizes
from radquant.checkpoints.planned import NotKnown, stored_as
from radquant.cli import duration
from radquant.kernels.rounding import unfit
from radquant.memory_plan import LEAN, Sight, Stored, Weights, in_gb
from radquant.settings.checkpoint import OWN, Checkpoint
from radquant.settings.engines import AUTO
from radquant.settings.given import Given
from radquant.settings.precision import INT
from radquant.settings.recipe import needs_calibration
from radquant.settings.run import ORIGINAL, Run, encoder_of

# Numbers of tokens to plan with, as the true ones are not known before the corpus is there.
# Findings have 50 to 100 words.
PROMPT_TOKENS, EXAMPLE_TOKENS, IMAGE_TOKENS, ANSWER_TOKENS = 150, 120, 256, 60
# From the data sheet of an NVIDIA L4, which most GPUs for this work at least reach.
GPU_BYTES_A_SECOND, GPU_FLOPS = 300e9, 60e12
# CPU seconds of one thread for a million quantized weights: docs/benchmarks.md, a 7B model.
UNKNOWN = "?"
SECONDS_A_MILLION = {True: 0.65, False: 0.06}  # by whether it is calibrated


@dataclass(frozen=True)
class Machine:
    """Where a run is to work."""

    gpu: bool
    memory: int  # bytes that a job may take
    flops: float  # multiplications and additions a second
    bytes_a_second: float


@dataclass(frozen=True)
class Row:
    """What one precision takes; None for what is not known."""

    precision: str
    checkpoint: str
    disk: int | None  # bytes of its checkpoint
    quantizing: int | None  # bytes at the peak
    quantized: bool  # whether its checkpoint is quantized in this run
    computing: int | None  # bytes at the peak of writing and scoring, in batches of `batch`
    batch: int  # reports at once; 0: the model itself does not fit
    seconds: float | None  # all together, quantization included
    making: float = 0  # of these, the quantization's, which precisions of a checkpoint share
    source: str = ""  # what the checkpoint's size is known from
    note: str = ""  # why something is not known
    on_disk: bool = False  # whether its weights are read from the disk at every step


def this_machine(threads: int, dtype: torch.dtype) -> Machine:
    """This machine's memory, and what its CPU does in half a second."""
    torch.set_num_threads(threads)
    one, other = (torch.ones(size, dtype=dtype) for size in ((256, 1024), (1024, 1024)))
    flops = 2 * 256 * 1024 * 1024 * rate(lambda: one @ other)
    large = torch.ones(16 << 20, dtype=torch.float32)
    moved = large.nbytes * rate(lambda: large.sum())
    return Machine(False, memory_plan.all_bytes(), flops, moved)


def rate(work: Any, seconds: float = 0.25) -> float:
    """How often `work` is done in a CPU second of this process's threads."""
    work()
    started, cpu, done = time.monotonic(), time.process_time(), 0
    while time.monotonic() - started < seconds or not done:
        work()
        done += 1
    spent = (time.process_time() - cpu) / torch.get_num_threads()
    return done / max(spent, 1e-6)


def a_gpu(gigabytes: float) -> Machine:
    return Machine(True, int(gigabytes * 1e9), GPU_FLOPS, GPU_BYTES_A_SECOND)


def item_bytes(run: Run, gpu: bool) -> int:
    """Of a number of the computation."""
    return DTYPES[dtype_name(run, gpu)].itemsize


def dtype_name(run: Run, gpu: bool) -> str:
    """Of the computation."""
    auto = "bfloat16" if gpu else "float32"
    return run.compute.dtype if run.compute.dtype in DTYPES else auto


def plan(run: Run, sizes: Sizes | None, results: Path, machine: Machine) -> list[Row]:
    """What each precision takes, in the configuration's order.

    sizes: the original model's, None where they are not known. results: where files may be already.
    """
    return [row_of(run, name, sizes, results, machine) for name in run.precisions]


def row_of(run: Run, name: str, sizes: Sizes | None, results: Path, machine: Machine) -> Row:
    checkpoint = run.precisions[name].checkpoint
    asked = None if checkpoint == ORIGINAL else run.checkpoints[checkpoint]
    made = asked is not None and not isinstance(asked, Given)
    try:
        stored = stored_as(run, checkpoint, None if sizes is None else sizes.weights, results)
    except NotKnown as unknown:
        return Row(name, checkpoint, None, None, made, None, 0, None, note=str(unknown))
    if sizes is None:
        return Row(name, checkpoint, stored.disk, None, made, None, 0, None, source=stored.source)
    weights = sizes.weights
    peak, batch, on_disk = computing_bytes(run, name, sizes, stored, machine)
    lean = engine_of(run, name, sizes.lean, machine) == LEAN
    seconds = computing_seconds(run, weights, max(batch, 1), stored, machine, lean)
    quantizing, making, note = None, 0.0, ""
    if made and getattr(asked, "tool", None) != OWN:
        note = f"memory and time of quantizing {checkpoint} are those of its tool, not planned here"
    elif isinstance(asked, Checkpoint):
        calibrated = needs_calibration(asked)
        quantizing = memory_plan.quantizing_bytes(weights, calibrated)
        making = SECONDS_A_MILLION[calibrated] * weights.linear / 1e6
    whole = None if on_disk else seconds + making
    taken = (stored.disk, quantizing, made, peak, batch, whole, making)
    return Row(name, checkpoint, *taken, stored.source, note, on_disk)


def computing_bytes(
    run: Run, name: str, sizes: Sizes, stored: Stored, machine: Machine
) -> tuple[int, int, bool]:
    """Bytes at the peak of writing and scoring, how many reports at once, and whether weights are
    kept on the disk."""
    widths, item = sizes.widths, item_bytes(run, machine.gpu)
    engine = engine_of(run, name, sizes.lean, machine)
    seeing = run.task.image_column is None  # else features are read, and what sees is left out
    held = memory_plan.held_bytes(sizes.weights, stored, item, engine, machine.gpu, seeing)
    length = prompt_tokens(run) + max(run.generation.max_new_tokens, ANSWER_TOKENS)
    each, once = 0, 0
    if widths is not None and engine in (LEAN, memory_plan.LLAMA_CPP):
        # They compute scores and layers a few rows at a time.
        each = memory_plan.cache_bytes(widths, length, item)
    elif widths is not None:
        each = memory_plan.row_bytes(widths, length, ANSWER_TOKENS, item)
        once = memory_plan.batch_bytes(widths, ANSWER_TOKENS)
    least = None
    if engine == LEAN and stored.linear is None and not machine.gpu:
        least = memory_plan.from_disk_bytes(
            sizes.weights, item, dtype_name(run, False), held.peak, machine.memory
        )
        held = held if least is None else memory_plan.Held(least, least)
    free = machine.memory - held.kept - once
    most = memory_plan.batch_for(free, each) if each and free > each else int(free > each)
    batch = min(run.generation.batch_size, most) if each else run.generation.batch_size
    if held.peak > machine.memory:
        batch = 0
    return max(held.peak, held.kept + once + batch * each), batch, least is not None and batch > 0


def engine_of(run: Run, name: str, lean: bool, machine: Machine) -> str:
    """What computes. lean: whether that engine knows models of the type.

    It rounds activations, keys and values to integers alone.
    """
    precision = run.precisions[name]
    engine = precision.engine or run.compute.engine
    if engine != AUTO:
        return engine
    inputs, cache = precision.activations, precision.kv_cache
    integers = (inputs is None or unfit(inputs) is None) and (cache is None or cache.type == INT)
    fits = lean and integers and not machine.gpu
    return LEAN if fits else "transformers"


def prompt_tokens(run: Run) -> int:
    images = run.task.image_column is not None
    return PROMPT_TOKENS + run.generation.examples * EXAMPLE_TOKENS + images * IMAGE_TOKENS


def computing_seconds(
    run: Run, weights: Weights, batch: int, stored: Stored, machine: Machine, lean: bool
) -> float:
    """At most: every output has generation.max_new_tokens tokens.

    lean: whether the engine is, which reads prompts once where all reports are written.
    """
    item, prompt = item_bytes(run, machine.gpu), prompt_tokens(run)
    reports = run.evaluation.reports
    written = min(run.generation.reports or reports, reports)
    once = lean and run.generation.reports is None
    read = (0 if once else written * prompt) + reports * (prompt + ANSWER_TOKENS)
    tokens = written * run.generation.max_new_tokens
    multiplied = 2 * weights.linear * (read + tokens) / machine.flops
    packed = stored.linear is not None and not stored.values
    size = (stored.linear or 0) if packed else weights.linear * item
    moved = tokens / batch * (size + weights.table * item) / machine.bytes_a_second
    return multiplied + moved


def images_told(run: Run, sizes: Sizes, machine: Machine) -> str:
    """What encoding the images takes, once for all precisions that the original's part sees for."""
    sight, weights, item = sizes.sight, sizes.weights, item_bytes(run, machine.gpu)
    others = sorted({encoder_of(run, p.checkpoint) for p in run.precisions.values()} - {ORIGINAL})
    again = (
        f" Those of {', '.join(others)} may differ, and are then encoded, too." if others else ""
    )
    if sight is None:
        return f"Encoding images: not known, the model's config.json says too little of it.{again}"
    memory = encoding_bytes(weights, sight, item, machine)
    each, count = image_seconds(weights, sight, machine), images_of(run)
    taken = " (taken as 1024 × 1024 pixels)" * sight.assumed
    fits = "" if memory < machine.memory else ", which does not fit"
    return (
        f"Encoding images{taken}, one at a time: {in_gb(memory)} of memory{fits}, {duration(each)} "
        f"an image; for {count:,} images, one a report, {duration(count * each)}.{again}"
    )


def image_seconds(weights: Weights, sight: Sight, machine: Machine) -> float:
    return memory_plan.image_flops(sight, weights.vision) / machine.flops


def images_of(run: Run) -> int:
    """How many are encoded, if each report has one."""
    return run.evaluation.reports + run.calibration_images * run.calibration.samples


def encoding_bytes(weights: Weights, sight: Sight, item: int, machine: Machine) -> int:
    """The peak of encoding an image by the part that sees, which is loaded alone."""
    size = weights.vision * item + memory_plan.image_bytes(sight, item)
    return size if machine.gpu else memory_plan.BASE + size


def total_told(rows: list[Row], run: Run, sizes: Sizes, machine: Machine) -> str:
    """What all precisions take together, each checkpoint being quantized once."""
    known = [row for row in rows if row.seconds is not None and row.batch]
    made = {row.checkpoint: row.making for row in known}
    seconds = sum(row.seconds - row.making for row in known if row.seconds is not None)
    seconds += sum(made.values())
    images = ""
    if run.task.image_column is not None and sizes.sight is not None:
        seconds += images_of(run) * image_seconds(sizes.weights, sizes.sight, machine)
        images = " and images encoded once"
    least = "at least " * (len(known) < len(rows))
    return (
        f"All together: {least}{duration(seconds)}, with each checkpoint quantized once{images}; "
        "checks, scores and the timing of each precision come on top."
    )


def misfits_told(rows: list[Row], run: Run, machine: Machine) -> str:
    """What can be done about precisions that do not fit; empty where all do."""
    names = [row.precision for row in rows if row.computing is not None and not row.batch]
    if not names:
        return disk_told(rows)
    if item_bytes(run, machine.gpu) == 4:
        remedy = "compute: {dtype: bfloat16} takes half of the memory"
    elif machine.gpu:
        remedy = "compute: {device: cpu} takes the machine's own memory, and far longer"
    else:
        remedy = "take a machine with more memory, or a smaller model"
    return " ".join(filter(None, [f"Does not fit: {', '.join(names)}; {remedy}.", disk_told(rows)]))


def disk_told(rows: list[Row]) -> str:
    """Which precisions are read from the disk; empty where none is."""
    on_disk = [row for row in rows if row.on_disk]
    if not on_disk:
        return ""
    size = max(row.disk or 0 for row in on_disk)
    return (
        f"From the disk: {', '.join(row.precision for row in on_disk)}. The weights do not fit "
        f"into memory, so every step reads them anew. Each job takes up to {in_gb(size)} more of "
        "the disk meanwhile, whose speed decides how long it takes. Under Slurm it is ended "
        "instead."
    )


def told(
    rows: list[Row],
    sizes: Sizes | None,
    run: Run,
    machine: Machine,
    unknown: list[str],
    free: int | None = None,
) -> str:
    """A Markdown table of the rows, what it is about, and why something is not known.

    unknown: why the original's sizes are not. free: bytes of the disk that the results are on.
    """
    where = f"{'a GPU' if machine.gpu else 'this machine'} with {in_gb(machine.memory)}"
    disks = {row.checkpoint: row.disk for row in rows}
    known = [disk for disk in disks.values() if disk is not None]
    least = "at least " * (len(known) < len(disks))
    here = "" if free is None else f" ({in_gb(free)} are free here)"
    weights = "the original's weights are not known"
    if sizes is not None:
        weights = (
            f"{sizes.weights.total / 1e9:.2f} billion weights, of which "
            f"{sizes.weights.linear / 1e9:.2f} are quantized"
        )
    lines = [
        f"{weights[0].upper()}{weights[1:]}; {where}. All checkpoints: {least}"
        f"{in_gb(sum(known))} on disk{here}; a download once more if the hub's cache is on another "
        "disk.",
        "",
        "| precision | on disk | quantizing: memory | writing: memory | reports at once | time | "
        "known from |",
        "| :--- | ---: | ---: | ---: | ---: | ---: | :--- |",
        *map(line_of, rows),
    ]
    if run.task.image_column is not None and sizes is not None:
        lines += ["", images_told(run, sizes, machine)]
    if sizes is not None:
        lines += ["", total_told(rows, run, sizes, machine)]
    if misfits := misfits_told(rows, run, machine):
        lines += ["", misfits]
    notes = dict.fromkeys(unknown + [row.note for row in rows if row.note])
    if notes:
        lines += ["", "Not known:", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines)


def line_of(row: Row) -> str:
    known = row.computing is not None
    disk = UNKNOWN if row.disk is None else in_gb(row.disk)
    quantizing = "–" if not row.quantized else UNKNOWN
    if row.quantizing is not None:
        quantizing = in_gb(row.quantizing)
    computing = UNKNOWN if row.computing is None else in_gb(row.computing)
    batch = str(row.batch) if row.batch else "does not fit" if known else UNKNOWN
    batch += ", from the disk" * row.on_disk
    spent = UNKNOWN if row.seconds is None else duration(row.seconds) if row.batch else "–"
    cells = (row.precision, disk, quantizing, computing, batch, spent, row.source or UNKNOWN)
    return f"| {' | '.join(cells)} |"
