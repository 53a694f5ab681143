"""transformers' own generate() in bfloat16, for benchmarks/engines.py."""

from importlib.metadata import version
from typing import Any

import torch
from protocol import Prompts, Worker, serve
from transformers import AutoModelForCausalLM, GenerationConfig

from radquant.generation.transformers_likelihood import answer_nll
from radquant.prompts import Prompt


def load(request: dict[str, Any]) -> Any:
    torch.set_num_threads(request["threads"])
    return AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.bfloat16).eval()


def write(model: Any, prompts: Prompts, new: int) -> Prompts:
    ids = torch.tensor(prompts)
    # Nothing ends an answer before its length.
    config = GenerationConfig(do_sample=False, max_new_tokens=new, pad_token_id=0)
    model.generation_config = config
    with torch.inference_mode():
        written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    rows: Prompts = written[:, ids.shape[1] :].tolist()
    return rows


def score(model: Any, prompts: Prompts, answers: Prompts) -> list[float]:
    return [
        answer_nll(model, [Prompt("", "", ids, 0, "", answer)], 0)[0]
        for ids, answer in zip(prompts, answers, strict=True)
    ]


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("transformers", "torch")}


if __name__ == "__main__":
    serve(Worker(load, write, score, versions))
