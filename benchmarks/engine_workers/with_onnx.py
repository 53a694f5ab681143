"""ONNX Runtime GenAI, for benchmarks/engines.py."""

import json
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime_genai
from protocol import CannotScore, Prompts, Worker, serve

from radquant.generation.llama_cpp_decoding import negative_log


def load(request: dict[str, Any]) -> Any:
    config = onnxruntime_genai.Config(request["model"])
    threads = {"intra_op_num_threads": request["threads"]}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
    return onnxruntime_genai.Model(config)


def begin(model: Any, prompts: Prompts, new: int) -> Any:
    """What has read prompts and shall write so many tokens behind each."""
    length = len(prompts[0]) + new
    params = onnxruntime_genai.GeneratorParams(model)
    # The least length keeps the end token from ending an answer.
    params.set_search_options(
        batch_size=len(prompts), max_length=length, min_length=length, do_sample=False
    )
    generator = onnxruntime_genai.Generator(model, params)
    generator.append_tokens(np.array(prompts, np.int32))
    return generator


def write(model: Any, prompts: Prompts, new: int) -> Prompts:
    generator = begin(model, prompts, new)
    while not generator.is_done():
        generator.generate_next_token()
    length = len(prompts[0])
    return [generator.get_sequence(row)[length:].tolist() for row in range(len(prompts))]


def score(model: Any, prompts: Prompts, answers: Prompts) -> list[float]:
    nats = []
    for ids, answer in zip(prompts, answers, strict=True):
        generator = begin(model, [[*ids, *answer[:-1]]], 1)
        scores = generator.get_output("logits")[0]
        if len(scores) != len(ids) + len(answer) - 1:
            raise CannotScore("its model gives the scores of a prompt's last token only")
        nats.append(sum(map(negative_log, scores[len(ids) - 1 :], answer)))
    return nats


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("onnxruntime-genai", "onnxruntime")}


if __name__ == "__main__":
    serve(Worker(load, write, score, versions))
