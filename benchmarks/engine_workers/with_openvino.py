"""OpenVINO GenAI's LLMPipeline, for benchmarks/engines.py.

It tells no probabilities of given tokens. They are those of the same files in OpenVINO itself, by
the same plug-in for CPUs.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from protocol import Prompts, Worker, serve

from radquant.generation.llama_cpp_decoding import negative_log


def load(request: dict[str, Any]) -> Any:
    threads = {"INFERENCE_NUM_THREADS": request["threads"]}
    pipeline = openvino_genai.LLMPipeline(request["model"], "CPU", **threads)
    return Path(request["model"]), threads, pipeline


def write(held: Any, prompts: Prompts, new: int) -> Prompts:
    ids = np.array(prompts, np.int64)
    read = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
    config = openvino_genai.GenerationConfig(max_new_tokens=new, ignore_eos=True, do_sample=False)
    written = held[2].generate(read, config)
    return [list(tokens) for tokens in written.tokens]


def score(held: Any, prompts: Prompts, answers: Prompts) -> list[float]:
    folder, threads, _ = held
    compiled = openvino.Core().compile_model(folder / "openvino_model.xml", "CPU", threads)
    run, nats = compiled.create_infer_request(), []
    for ids, answer in zip(prompts, answers, strict=True):
        read = np.array([[*ids, *answer[:-1]]], np.int64)
        run.reset_state()
        given = {
            "input_ids": read,
            "attention_mask": np.ones_like(read),
            "position_ids": np.arange(read.size)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        scores = run.infer(given)["logits"][0, len(ids) - 1 :]
        nats.append(sum(map(negative_log, scores, answer)))
    return nats


def versions() -> dict[str, str]:
    return {"openvino-genai": version("openvino-genai"), "openvino": version("openvino")}


if __name__ == "__main__":
    serve(Worker(load, write, score, versions))
