"""Print what batches of likelihood are planned to take, and take, as Linux counts it.

A process of its own does so, with HEAP in its environment: large blocks then go back to the system
as soon as they are free. Else what one batch left is taken again by the next one, and not counted.
"""

import ctypes
import json
import re
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from radquant import memory_plan
from radquant.generation import transformers_likelihood
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


def main() -> None:
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
        ctypes.CDLL(None).malloc_trim(0)
        REFRESH.write_text("5")
        before = highest()
        transformers_likelihood.answer_nll(model, prompts, 0)
        taken = highest() - before
        each = memory_plan.row_bytes(widths, length + answer, answer + 1, 4)
        planned = rows * each + memory_plan.batch_bytes(widths, answer + 1)
        found.append((planned, taken))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
