"""This package's quantization beside AutoAWQ's, GPTQModel's and llm-compressor's.

All get the same model, calibration tokens and number of threads. They make weights with zero points
in groups of 64, of 4 bits unless said otherwise. Perplexity is that of reports which no calibration
saw, by this package's own reader of every checkpoint. Some were looked at when its recipes were
chosen, and others were not. Each quantizer is a process of its own, measured from outside with all
that it loads. What was measured already is not measured again: remove --work to start anew.
"""

import argparse
import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gemma import make_gemma
from measuring import REPOSITORY, measured, script
from scipy import stats

from radquant import environments
from radquant.checkpoints.loading import load, load_tokenizer
from radquant.files import read_json, read_table, write_json, write_table
from radquant.quantization.onednn import onednn_products
from radquant.runtime.kv_cache import new_cache
from radquant.settings.precision import KVCache

GROUP_SIZE = 64
BATCH = 4
# tool, recipe, options: of quantize.py, quantize_autoawq.py, quantize_gptqmodel.py and so on.
RUNS = [
    ("radquant", "RTN", ["--method", "rtn"]),
    ("radquant", "AWQ", ["--method", "awq"]),
    ("radquant", "GPTQ", ["--method", "gptq"]),
    ("radquant", "GPTQ, desc_act", ["--method", "gptq", "--desc-act"]),
    ("radquant", "AWQ + GPTQ", ["--method", "awq", "--rounding", "gptq"]),
    ("radquant", "RTN, 8 bits", ["--method", "rtn", "--bits", "8"]),
    ("radquant", "AWQ, 8 bits", ["--method", "awq", "--bits", "8"]),
    ("radquant", "GPTQ, 8 bits", ["--method", "gptq", "--bits", "8"]),
    ("llmcompressor", "RTN", ["--method", "rtn"]),
    ("llmcompressor", "AWQ", ["--method", "awq"]),
    ("llmcompressor", "GPTQ", ["--method", "gptq"]),
    ("llmcompressor", "AWQ + GPTQ", ["--method", "awq+gptq"]),
    ("gptqmodel", "GPTQ", []),
    ("gptqmodel", "GPTQ, desc_act", ["--desc-act"]),
    ("autoawq", "AWQ", []),
]
CANNOT = {("autoawq", "gemma3-270m")}  # it refuses the architecture


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="of a finished run (%(default)s)")
    add("--work", type=Path, default=Path("benchmarks/quantization"), help="default: %(default)s")
    add("--environments", type=Path, default=Path("results/environments"), help="of the tools")
    add("--models", nargs="+", default=["smollm2-135m", "gemma3-270m"], help="%(default)s")
    add("--samples", type=int, default=64, help="calibration reports (%(default)s)")
    add(
        "--reports",
        type=int,
        default=200,
        help="held-out reports, and as many others (%(default)s)",
    )
    add("--threads", type=int, default=1, help="CPU threads of each quantizer (%(default)s)")
    add("--only", nargs="*", metavar="TOOL", help="some of the tools")
    return parser.parse_args()


def divide_reports(results: Path, work: Path, count: int) -> None:
    """Held-out reports of `count` patients, and the calibration's of all others."""
    if (work / "held.csv").is_file():
        return
    table = read_table(results / "data" / "train.csv").sample(frac=1, random_state=0)
    patient = table["group"].where(table["group"] != "", table["id"])
    held = table[~patient.duplicated()].iloc[:count]
    write_table(work / "held.csv", held)
    write_table(work / "pool.csv", table[~patient.isin(patient[held.index])])


def other_reports(work: Path, samples: Path, count: int, output: Path) -> None:
    """`count` reports that are neither held out nor calibrated on, for a look after all choices."""
    if not output.is_file():
        pool = read_table(work / "pool.csv")
        rest = pool[~pool["text"].isin(read_table(samples)["text"])]
        write_table(output, rest.sample(count, random_state=1))


def quantizer(tool: str, environments_at: Path) -> list[str]:
    """The beginning of the command that runs `tool`."""
    if tool == "radquant":
        return script("quantize.py")
    place = environments_at / tool
    environments.build(REPOSITORY / "envs" / f"{tool}.txt", place)
    python = place / "bin" / "python"
    if tool == "llmcompressor":
        return [str(python), str(REPOSITORY / "benchmarks" / "quantize_llmcompressor.py")]
    return script(f"quantize_{tool}.py", python=python)


def quantize(
    tool: str, options: list[str], model: Path, samples: Path, output: Path, args: Any
) -> dict[str, float]:
    """Make the checkpoint `output` and say what it took."""
    record = output.with_suffix(".json")
    if not record.is_file():
        common = ["--model", model, "--calibration", samples, "--output", output]
        common += ["--group-size", GROUP_SIZE, "--threads", args.threads]
        shutil.rmtree(output, ignore_errors=True)
        command = [*quantizer(tool, args.environments), *map(str, common), *options]
        used = measured(command, args.threads)
        used["size"] = sum(file.stat().st_size for file in output.glob("*.safetensors"))
        write_json(record, used)
    return read_json(record)


@torch.inference_mode()
def nll(
    checkpoint: Path, tokenizer_of: Path, reports: Path, output: Path, cache: KVCache | None = None
) -> np.ndarray:
    """Negative log-likelihood of each report, [reports], and its tokens: [2, reports] float64."""
    if not output.is_file():
        tokenizer = load_tokenizer(tokenizer_of)
        tokenizer.padding_side = "right"
        texts = list(read_table(reports)["text"])
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        model = load(checkpoint).model
        found = np.zeros((2, len(texts)))
        with onednn_products():
            for start in range(0, len(order), BATCH):
                members = order[start : start + BATCH]
                batch = tokenizer([texts[i] for i in members], padding=True, return_tensors="pt")
                ids, kept = batch["input_ids"], batch["attention_mask"][:, 1:]
                states = new_cache(model.config, cache)
                logits = model(**batch, past_key_values=states).logits[:, :-1]
                losses = logits.logsumexp(-1) - logits.gather(-1, ids[:, 1:, None])[..., 0]
                found[0, members] = (losses * kept).sum(1).double().numpy()
                found[1, members] = kept.sum(1).numpy()
        np.save(output, found)
        del model
        gc.collect()
    return np.load(output)


def perplexity(found: np.ndarray) -> float:
    return float(np.exp(found[0].sum() / found[1].sum()))


def difference(found: np.ndarray, other: np.ndarray) -> str:
    """Of nats per token, with the 95 % bootstrap interval over reports."""

    def mean(a: np.ndarray, b: np.ndarray, tokens: np.ndarray, axis: int = -1) -> np.ndarray:
        return (a.sum(axis) - b.sum(axis)) / tokens.sum(axis)

    interval = stats.bootstrap(
        (found[0], other[0], found[1]), mean, paired=True, rng=0, n_resamples=2000
    ).confidence_interval
    value = mean(found[0], other[0], found[1])
    return f"{value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def calibration_samples(model: Path, work: Path, args: argparse.Namespace) -> Path:
    """The calibration set of `args` for a model, made once: samples.parquet in `work`."""
    samples = work / "samples.parquet"
    if not samples.is_file():
        source = ["--texts", args.work / "pool.csv", "--column", "text"]
        made = ["--output", samples, "--record", work / "samples.json"]
        amount = ["--samples", args.samples, "--max-tokens", 256]
        measured(script("calibration_set.py", "--model", model, *source, *amount, *made))
    return samples


def compare(name: str, model: Path, args: argparse.Namespace) -> list[str]:
    """The table of one model."""
    work = args.work / name
    work.mkdir(parents=True, exist_ok=True)
    samples = calibration_samples(model, work, args)
    held, others = args.work / "held.csv", work / "others.csv"
    other_reports(args.work, samples, args.reports, others)
    original = nll(model, model, held, work / "original.npy")
    original_of_others = nll(model, model, others, work / "original-others.npy")
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    tokens = read_json(work / "samples.json")["tokens"]
    lines = [
        f"{name}: {tokens} calibration tokens, {original.shape[1]} held-out reports of "
        f"{original[1].sum():.0f} tokens, {args.threads} thread(s)",
        "",
        "| tool | recipe | perplexity | nats/token over the original (95 %) | perplexity of others "
        "| CPU | wall | peak memory | size |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        f"| | original | {perplexity(original):.2f} | | {perplexity(original_of_others):.2f} "
        f"| | | | {size / 1e6:.0f} MB |",
    ]
    for tool, recipe, options in RUNS:
        if (tool, name) in CANNOT or (args.only and tool not in args.only):
            continue
        output = work / f"{tool}-{recipe}".lower().replace(", ", "-").replace(" + ", "-")
        used = quantize(tool, options, model, samples, output, args)
        found = nll(output, model, held, output.with_suffix(".npy"))
        of_others = nll(output, model, others, output.with_name(output.name + "-others.npy"))
        cells = [
            tool,
            recipe,
            f"{perplexity(found):.2f}",
            difference(found, original),
            f"{perplexity(of_others):.2f}",
            f"{used['cpu_seconds']:.0f} s",
            f"{used['wall_seconds']:.0f} s",
            f"{used['peak_bytes'] / 1e6:.0f} MB",
            f"{used['size'] / 1e6:.0f} MB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def print_tables(
    args: argparse.Namespace, compare: Callable[[str, Path, argparse.Namespace], list[str]]
) -> None:
    """Print the lines that `compare` makes of each model of `args`, by name and directory."""
    tables = ["\n".join(compare(name, model, args)) for name, model in originals(args)]
    print("\n\n".join(tables))


def originals(args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """The models of `args` by name and directory, once reports are divided for them."""
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    divide_reports(args.results, args.work, args.reports)
    models = {"smollm2-135m": args.results / "models" / "original"}
    models["gemma3-270m"] = args.work / "gemma3-270m-original"
    for name in args.models:
        if name == "gemma3-270m" and not models[name].is_dir():
            make_gemma(models[name], args.work)
        yield name, models[name]


def main() -> None:
    print_tables(parse_arguments(), compare)


if __name__ == "__main__":
    main()
