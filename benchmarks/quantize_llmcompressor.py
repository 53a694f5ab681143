"""Quantize the weights of a model with llm-compressor, in the environment of
envs/llmcompressor.txt: a rival for benchmarks/quantization.py, not a tool of the workflow."""

import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pandas as pd
import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from transformers import AutoModelForCausalLM


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True)
    add("--calibration", type=Path, required=True)
    add("--method", choices=["rtn", "awq", "gptq", "awq+gptq"], required=True)
    add("--group-size", type=int, default=64)
    add("--threads", type=int, default=1)
    add("--output", type=Path, required=True)
    return parser.parse_args()


def modifiers(method: str, group_size: int) -> list:
    """llm-compressor's own defaults but for the grid: 4 bits with zero points, in groups."""
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": False,
        "strategy": "group",
        "group_size": group_size,
    }
    scheme = {
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }
    rounding = GPTQModifier(**scheme) if "gptq" in method else QuantizationModifier(**scheme)
    return [AWQModifier(), rounding] if "awq" in method else [rounding]


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    if not torch.cuda.is_available():
        # AWQ pins what it will copy to a GPU, which fails where there is none.
        IntermediatesCache.pin_memory = lambda *_: None
    # float16 products are many times slower than float32 ones on a CPU.
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    ids = [each.tolist() for each in pd.read_parquet(args.calibration)["input_ids"]]
    samples = [{"input_ids": each, "attention_mask": [1] * len(each)} for each in ids]
    oneshot(
        model=model,
        dataset=Dataset.from_list(samples),
        recipe=modifiers(args.method, args.group_size),
        num_calibration_samples=len(samples),
        max_seq_length=max(map(len, ids)),
        shuffle_calibration_samples=False,
        tokenizer=str(args.model),
        output_dir=str(args.output),
    )


if __name__ == "__main__":
    main()
