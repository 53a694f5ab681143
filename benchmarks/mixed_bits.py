"""Bits that differ between layers beside uniform ones of the same size.

The model, the calibration tokens and the held-out reports are those of benchmarks/quantization.py,
whose --work may be given here. Two measures: perplexity, and the divergence of the next-token
distribution from the original's, KL(original ‖ quantized), in nats a token. The second is what
rounding does; the first also counts that calibration draws a model towards the reports. What was
measured already is not measured again: remove --work to start anew.
"""

import gc
import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from measuring import measured, script
from quantization import (
    calibration_samples,
    difference,
    parse_arguments,
    perplexity,
    print_tables,
)

from radquant.checkpoints.loading import load, load_tokenizer
from radquant.files import read_json, read_table, write_json
from radquant.quantization.onednn import onednn_products

# Of the same size: 4 bits in groups of 32 take 5/16 of a bit more than in groups of 64.
GROUPS_OF_32 = 4.3125


def average(bits: float) -> list[str]:
    return ["--bits", json.dumps({"average": bits})]


RUNS = [
    (f"{method.upper()}, {what}", ["--method", method, *options])
    for method in ("awq", "gptq")
    for what, options in (
        ("4 bits", ["--format", "gptq"]),
        ("4 bits, groups of 32", ["--group-size", "32", "--format", "gptq"]),
        ("mixed, as large as groups of 32", average(GROUPS_OF_32)),
        ("mixed, 4.25", average(4.25)),
    )
]
RUNS += [
    ("GPTQ, mixed, as large as 4 bits", ["--method", "gptq", *average(4)]),
    ("GPTQ, mixed, 3.5", ["--method", "gptq", *average(3.5)]),
    ("GPTQ, 3 bits", ["--method", "gptq", "--bits", "3"]),
]


@torch.inference_mode()
def judge(model: Path, checkpoint: Path, reports: Path, output: Path) -> np.ndarray:
    """Of each report the negative log-likelihood, its tokens, the original's likelihood and the
    summed divergence: [4, reports] float64."""
    if not output.is_file():
        tokenizer, original = load_tokenizer(model), load(model).model
        quantized = load(checkpoint).model
        found = []
        with onednn_products():
            for text in read_table(reports)["text"]:
                ids = tokenizer(text, return_tensors="pt")["input_ids"]
                before, after = (
                    each(input_ids=ids).logits[0, :-1].log_softmax(-1)
                    for each in (original, quantized)
                )
                of_text = [
                    -float(each.gather(-1, ids[0, 1:, None]).sum()) for each in (after, before)
                ]
                moved = float((before.exp() * (before - after)).sum())
                found.append([of_text[0], len(after), of_text[1], moved])
        np.save(output, np.array(found).T)
        del original, quantized
        gc.collect()
    return np.load(output)


def compare(name: str, model: Path, args: Namespace) -> list[str]:
    """The table of one model."""
    work = args.work / name
    work.mkdir(parents=True, exist_ok=True)
    samples, held = calibration_samples(model, work, args), args.work / "held.csv"
    lines = [
        f"{name}, {args.reports} held-out reports, groups of 64 unless said otherwise:",
        "",
        "| recipe | perplexity | nats/token over the original (95 %) | divergence | size | CPU |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for recipe, options in RUNS:
        output = work / f"mixed-{recipe}".lower().replace(", ", "-").replace(" ", "-")
        record = output.with_suffix(".json")
        if not record.is_file():
            common = ["--model", model, "--calibration", samples, "--output", output]
            shutil.rmtree(output, ignore_errors=True)
            given = [*common, "--group-size", 64, "--threads", args.threads, *options]
            used = measured(script("quantize.py", *given), args.threads)
            used["size"] = sum(file.stat().st_size for file in output.glob("*.safetensors"))
            write_json(record, used)
        used = read_json(record)
        found = judge(model, output, held, output.with_suffix(".npy"))
        cells = [
            recipe,
            f"{perplexity(found):.2f}",
            difference(found[:2], found[[2, 1]]),
            f"{found[3].sum() / found[1].sum():.4f}",
            f"{used['size'] / 1e6:.1f} MB",
            f"{used['cpu_seconds']:.0f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    print_tables(parse_arguments(), compare)


if __name__ == "__main__":
    main()
