"""Print what batches of likelihood, and models, are planned to take, and take, as Linux counts it.

A process of its own does so, with HEAP in its environment. Large blocks then go back to the system
as soon as they are free. Else what one batch left is taken again by the next one, and not counted.
"""

import ctypes
import json
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tiny_models import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from radquant import memory_plan
from radquant.checkpoints.loading import load
from radquant.checkpoints.model_sizes import sizes_of
from radquant.generation import transformers_likelihood
from radquant.generation.lean_decoder import take_over
from radquant.kernels import cpu
from radquant.memory_plan import LEAN, Stored
from radquant.prompts import Prompt
from radquant.runtime.head import multiply_rows

CASES = [(8, 300, 20), (6, 60, 50)]  # rows, tokens of a prompt, and of its answer
HEAP = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}
REFRESH = Path("/proc/self/clear_refs")  # 5: the peak begins anew, see proc(5)


def highest() -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def prompt(number: int, length: int, answer: int) -> Prompt:
    ids = [1 + (number * 31 + place) % 900 for place in range(length)]
    return Prompt(str(number), "", ids, 0, "", ids[:answer])


def taken_by(work: Any) -> int:
    """Bytes that `work` adds to the peak of this process."""
    ctypes.CDLL(None).malloc_trim(0)
    REFRESH.write_text("5")
    before = highest()
    work()
    return highest() - before


def batches() -> list[tuple[int, int]]:
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 2048,
        "num_hidden_layers": 2,
        "tie_word_embeddings": True,
    }
    config = LlamaConfig(**sizes, num_attention_heads=8, head_dim=32, vocab_size=30_000)
    model = LlamaForCausalLM(config).eval()
    multiply_rows(model)
    widths = memory_plan.widths_of(config)
    assert widths is not None
    found = []
    for rows, length, answer in CASES:
        prompts = [prompt(number, length, answer) for number in range(rows)]
        transformers_likelihood.answer_nll(model, prompts[:1], 0)  # what is made once
        taken = taken_by(partial(transformers_likelihood.answer_nll, model, prompts, 0))
        each = memory_plan.row_bytes(widths, length + answer, answer + 1, 4)
        planned = rows * each + memory_plan.batch_bytes(widths, answer + 1)
        found.append((planned, taken))
    return found


def opened(folder: Path, dtype: torch.dtype) -> Any:
    return take_over(load(folder, dtype=dtype), None)


def models(folder: Path) -> list[tuple[int, int]]:
    """An original in the lean engine: mapped as it is stored, or a copy in float32."""
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6}
    config = LlamaConfig(**sizes, num_attention_heads=8, num_key_value_heads=4, vocab_size=8000)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to(torch.bfloat16).to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    model.save_pretrained(folder)
    tiny_tokenizer(folder)
    del model
    weights = sizes_of(folder).weights
    stored = Stored(memory_plan.stored_bytes(weights))
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        taken = taken_by(partial(opened, folder, dtype))
        held = memory_plan.held_bytes(weights, stored, dtype.itemsize, LEAN, gpu=False)
        found.append((held.peak - memory_plan.BASE, taken))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = cpu.unavailable() is None  # else there is no lean engine
        print(json.dumps([*batches(), *(models(Path(folder)) if runs else [])]))


if __name__ == "__main__":
    main()
