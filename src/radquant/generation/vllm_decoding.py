"""Decoding prompts of token ids with vLLM: the part that runs in vLLM's own environment.

Prompts, and how outputs are read, are the caller's (`vllm_job.py`): nothing is tokenized here, and
of images there are features (`vllm_images.py`).
    python -m radquant.generation.vllm_decoding JOB ANSWER
"""

import importlib.metadata
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from radquant.cli import run
from radquant.generation import vllm_images

# Of vLLM 0.32's kernels (model_executor/kernels/linear/scaled_mm), those that round inputs. Others
# for the same weights do not, such as Marlin's and most of those for CPUs with AMX.
ROUND_INPUTS = {
    *("CPUInt8ScaledMMLinearKernel", "CutlassInt8ScaledMMLinearKernel"),
    *("TritonInt8ScaledMMLinearKernel", "CPUFP8W8A8ScaledMMLinearKernel"),
    *("CutlassFP8ScaledMMLinearKernel", "FlashInferFP8ScaledMMLinearKernel"),
    *("PerTensorTorchFP8ScaledMMLinearKernel", "RowWiseTorchFP8ScaledMMLinearKernel"),
    *("ChannelWiseTorchFP8ScaledMMLinearKernel", "TritonFP8ScaledMMLinearKernel"),
}
Asked = Sequence[tuple[int, list[int]]]
Answering = Callable[[Asked, Any], list[Any]]
SAME_TOKENS = 4  # at the end of an answer, that make it look like one of broken scores


def decode_job(job: Path, answer: Path) -> None:
    """Do what the JSON file `job` asks, and write what came of it to the JSON file `answer`."""
    asked = json.loads(job.read_text(encoding="utf-8"))
    answer.write_text(json.dumps(measured(asked)), encoding="utf-8")


def load(job: dict[str, Any]) -> Any:
    if job["features"] is not None:
        vllm_images.check_torchvision()
        vllm_images.without_processor(vllm_images.most_tokens(job))
    from vllm import LLM  # type: ignore[import-not-found]

    return LLM(
        job["model"],
        dtype=job["dtype"],
        trust_remote_code=job["trust_remote_code"],
        max_model_len=job["max_model_len"],
        max_num_seqs=job["max_num_seqs"],
        # The checkpoint's own may ask for sampling or a repetition penalty.
        generation_config="vllm",
        # On a CPU, compiling takes longer than a run.
        enforce_eager=job["device"] == "cpu",
        seed=0,
        **for_images(job),
    )


def for_images(job: dict[str, Any]) -> dict[str, Any]:
    """vLLM's options for features in the place of pixels.

    With a limit of no image the part that sees is not loaded, and features are taken all the same.
    An image whose tokens see each other both ways vLLM reads in one step of its own accord.
    """
    if job["features"] is None:
        return {}
    return {
        "enable_mm_embeds": True,
        "limit_mm_per_prompt": {"image": 0, "video": 0},
        "mm_processor_cache_gb": 0,
        "mm_device_do_normalize": False,  # of pixels, as a processor would say
    }


def describe(model: Any) -> dict[str, Any]:
    """Count what vLLM made of the weights; it joins several linear layers of the model in one."""
    from vllm.model_executor.layers.linear import (  # type: ignore[import-not-found]
        LinearBase,
        UnquantizedLinearMethod,
    )

    layers, rounding, kernels, out_of_sight = 0, 0, set(), 0
    for module in model.modules():
        if not isinstance(module, LinearBase):
            continue
        if isinstance(module.quant_method, UnquantizedLinearMethod):
            # On a CPU oneDNN holds the weights in a layout of its own, and the tensor here is
            # empty.
            if module.weight.numel() == 0:
                size = module.input_size * module.output_size
                out_of_sight += size * module.params_dtype.itemsize
            continue
        joined = len(getattr(module, "output_sizes", [0]))
        holder = getattr(module, "scheme", None) or module.quant_method
        kernel = getattr(holder, "kernel", None) or getattr(holder, "fp8_linear", holder)
        layers += joined
        rounding += joined * (type(kernel).__name__ in ROUND_INPUTS)
        kernels.add(type(kernel).__name__)
    tensors = [*model.parameters(), *model.buffers()]
    distinct = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}
    return {
        "layers_quantized": layers,
        "activation_layers": rounding,
        "kernel": f"vLLM {' and '.join(sorted(kernels))}" if kernels else "none",
        "weight_bytes": sum(distinct.values()) + out_of_sight,
    }


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """Load the model, decode all prompts in one call, and say what that cost."""
    import torch

    from radquant.generation import measures
    from radquant.generation.process_costs import peak_process_bytes

    device = torch.device(job["device"])
    with measures.stopwatch(device) as loading:
        llm = load(job)
    from vllm import SamplingParams

    greedy = SamplingParams(
        temperature=0,
        max_tokens=job["max_new_tokens"],
        stop_token_ids=job["end_ids"],
        stop=job["stop"],
    )
    answer = answering(llm, job)
    asked = list(enumerate(job["prompts"]))
    started = time.perf_counter()
    with measures.stopwatch(device) as spent:
        answers = answer(asked, greedy)
    seconds = [time.perf_counter() - started] if asked else []
    names = ("vllm", "torch", "transformers")
    tokens = [list(answer.outputs[0].token_ids) for answer in answers]
    return {
        "tokens": tokens,
        "not_finite": first_not_finite(answer, job, tokens),
        "wall_seconds": spent.wall_seconds,
        "cpu_seconds": spent.cpu_seconds,
        "seconds": seconds,  # of the one call; none where there is nothing to write
        "load_seconds": loading.wall_seconds,
        "peak_process_bytes": peak_process_bytes(),
        "peak_device_bytes": measures.peak_device_bytes(device),
        "device_name": measures.device_name(device),
        "versions": {name: package_version(name) for name in names},
        **llm.apply_model(describe)[0],
    }


def answering(llm: Any, job: dict[str, Any]) -> Answering:
    """What answers prompts, each the place of one in the job, and its tokens, with its images."""
    if job["features"] is None:
        return lambda asked, told: (
            llm.generate([{"prompt_token_ids": ids} for _, ids in asked], told, use_tqdm=False)
            if asked
            else []
        )
    held = vllm_images.read_images(job)
    llm.apply_model(vllm_images.hand_out)

    def answer(asked: Asked, told: Any) -> list[Any]:
        made = [vllm_images.prompt_with(ids, job["images"][n], held) for n, ids in asked]
        return vllm_images.answers_of(llm, made, told)

    return answer


def first_not_finite(answer: Answering, job: dict[str, Any], tokens: list[list[int]]) -> int | None:
    """The place of an answer that was chosen by scores that are no numbers; None if there is none.

    Of such scores vLLM takes the same token for ever. Of answers that end so the last token is
    written once more, with its probability: outside of what is measured, because it costs time.
    """
    from vllm import SamplingParams

    places = [n for n, ids in enumerate(tokens) if len(set(ids[-SAME_TOKENS:])) == 1]
    told = SamplingParams(temperature=0, max_tokens=1, logprobs=0)
    again = [(n, [*job["prompts"][n], *tokens[n][:-1]]) for n in places]
    for place, found in zip(places, answer(again, told), strict=True):
        likely = found.outputs[0].cumulative_logprob
        if likely is not None and not math.isfinite(likely):
            return place
    return None


def package_version(name: str) -> str:
    """The installed version; vLLM for CPUs is a package of another name."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version(f"{name}-cpu")


if __name__ == "__main__":
    run(lambda: decode_job(*map(Path, sys.argv[1:])))
