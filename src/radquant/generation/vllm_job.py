"""Greedy generation with vLLM, in its own environment: token ids and images' features go there.

Everything but the decoding is done here, by the code that the other engines use. That is the
prompts, what ends an output, and how a text is made from tokens. `vllm_decoding.py` decodes.
"""

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import radquant
from radquant import prompts
from radquant.checkpoints.building import packed_layers, read_settings
from radquant.checkpoints.finite_weights import require_finite_files
from radquant.checkpoints.loading import DTYPES, load_tokenizer, resolve_device
from radquant.checkpoints.writing import verify
from radquant.errors import UserError
from radquant.failures import how_it_ended, loading
from radquant.files import read_json
from radquant.generation import vllm_decoding
from radquant.generation.engines.kind import Opened, Wanted
from radquant.generation.outputs import read_output
from radquant.generation.rotary import switching_length
from radquant.generation.tasks import Computed, Done, Task, Work, not_finite
from radquant.generation.vllm_images import write_images
from radquant.generation.vllm_limits import ENVIRONMENT, check_checkpoint, check_images
from radquant.memory_plan import kept_by_layer
from radquant.model_checks import check_model
from radquant.model_files import stored_tensors
from radquant.tokenizer_files import read_chat_template
from radquant.vision.processors import load_processor


def opened_there(wanted: Wanted) -> Opened:
    """The tokenizer and configuration of a model that vLLM can compute with; no weights."""
    device = resolve_device(wanted.device).type
    dtype = "bfloat16" if wanted.dtype == "auto" else wanted.dtype
    check_checkpoint(wanted.model, dtype, device == "cpu")
    check_model(wanted.model)
    verify(wanted.model)
    require_finite_files(stored_tensors(wanted.model).values(), DTYPES[dtype])
    tokenizer = load_tokenizer(wanted.model, wanted.trust_remote_code)
    processor = None
    if wanted.images:
        check_images(wanted.model, device == "cpu")
        processor = load_processor(wanted.model, tokenizer)
    if wanted.chat_template:
        tokenizer.chat_template = read_chat_template(wanted.chat_template)
    config, stated = model_config(wanted.model, wanted.trust_remote_code)
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    ends, stop = prompts.endings(tokenizer, stated, vocabulary, wanted.date)
    if not ends:
        raise UserError(
            f"{wanted.model} names no token that ends an answer; set eos_token_id in its "
            "generation_config.json"
        )
    return Opened(
        wanted=wanted,
        dtype=dtype,
        tokenizer=tokenizer,
        processor=processor,
        end_ids=ends,
        context=getattr(config.get_text_config(), "max_position_embeddings", None),
        stored=(),
        vocabulary=vocabulary,
        stop=stop,
        held=config,
    )


def write(opened: Opened, task: Task) -> Done:
    """Write the answers of a task, all in one call of vLLM, which forms its own batches."""
    if task.max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {task.max_new_tokens}; it must be at least 1")
    wanted, config, device = opened.wanted, opened.held, resolve_device(opened.wanted.device).type
    job = {
        "model": str(wanted.model),
        "device": device,
        "dtype": opened.dtype,
        "trust_remote_code": wanted.trust_remote_code,
        "prompts": [prompt.ids for prompt in task.prompts],
        "max_new_tokens": task.max_new_tokens,
        "end_ids": task.end_ids,
        "stop": task.stop,
        "max_model_len": task.longest,
        "max_num_seqs": task.batch_size,
    }
    check_positions(config.get_text_config(), task.longest)
    space = cache_gigabytes(config.get_text_config(), task.longest * task.batch_size)
    done = run_vllm(opened, job, space, task)
    if done["not_finite"] is not None:
        raise not_finite(task.prompts[done["not_finite"]].id)
    packed, rounding = stored_layers(wanted.model, config)
    if done["layers_quantized"] != packed:
        raise UserError(
            f"vLLM computes {done['layers_quantized']} linear layers of {wanted.model} from packed "
            f"weights, which holds {packed}; use engine transformers"
        )
    if done["activation_layers"] != rounding:
        raise UserError(
            f"vLLM's kernel here ({done['kernel']}) rounds the inputs of "
            f"{done['activation_layers']} linear layers of {wanted.model}, and the checkpoint says "
            f"{rounding}; use engine transformers"
        )
    ends = set(task.end_ids or ())
    return Done(
        work=Work(
            results=[read_output(opened.tokenizer, ids, ends, task.stop) for ids in done["tokens"]],
            seconds=done["seconds"],
            too_large=[],
            shared_tokens=0,  # vLLM shares what it finds, and does not say how much
            pace=None,  # it reads and writes in the same steps
        ),
        batches=len(done["seconds"]),
        wall_seconds=done["wall_seconds"],
        cpu_seconds=done["cpu_seconds"],
        computed=Computed(
            device=device,
            device_name=done["device_name"],
            dtype=opened.dtype,
            versions=done["versions"],
            kernel=done["kernel"],
            layers_quantized=done["layers_quantized"],
            activation_layers=done["activation_layers"],
            simulated=False,
            weight_bytes=done["weight_bytes"],
            load_seconds=done["load_seconds"],
            peak_process_bytes=done["peak_process_bytes"],
            peak_device_bytes=done["peak_device_bytes"],
        ),
    )


def shown_images(task: Task, config: Any, folder: Path) -> dict[str, Any]:
    """The images of a job's prompts, and the folder that their features are written to."""
    if task.features is None:
        return {"features": None, "images": []}
    images = write_images(task.prompts, task.features, config.image_token_id, folder)
    return {"features": str(folder.resolve()), "images": images}


def model_config(directory: Path, trust_remote_code: bool) -> tuple[Any, Any]:
    """The model's configuration, and that of its writing, which says what ends an answer."""
    from transformers import AutoConfig, GenerationConfig

    with loading(directory):
        config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
        stated = (
            GenerationConfig.from_pretrained(directory)
            if (directory / "generation_config.json").is_file()
            else GenerationConfig.from_model_config(config)
        )
    return config, stated


def check_positions(config: Any, longest: int) -> None:
    """Raise UserError if vLLM would read positions of short sequences as those of long ones."""
    switch = switching_length(config)
    if switch is not None and longest > switch:
        raise UserError(
            f"beyond {switch} tokens vLLM reads positions of all sequences otherwise, and these "
            f"have up to {longest}; use engine transformers, or shorter prompts"
        )


def cache_gigabytes(config: Any, tokens: int) -> int:
    """Whole GiB that hold the keys and values, 16 bits each, of so many tokens in every layer."""
    width = sum(heads * channels for heads, channels in kept_by_layer(config))
    return math.ceil(2 * 2 * width * tokens / 2**30)


def stored_layers(directory: Path, config: Any) -> tuple[int, int]:
    """How many linear layers of the checkpoint are packed, and of how many of these it says that
    inputs are rounded; none of an original."""
    quantization = getattr(config, "quantization_config", None)
    if not quantization:
        return 0, 0
    settings = read_settings(directory, quantization)
    packed = packed_layers(stored_tensors(directory), settings)
    each = [settings.of(layer) or settings for layer in packed]
    rounding = settings.activations is not None
    return len(packed), sum(rounding and not own.keeps_inputs for own in each)


def run_vllm(opened: Opened, job: Mapping[str, Any], cache_gib: int, task: Task) -> dict[str, Any]:
    """Run the job with vLLM's Python; what `vllm_decoding.measured` says of it.

    Prompts, the features of their images and outputs pass through files in a folder of their own,
    removed at the end.
    """
    wanted = opened.wanted
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process, whose cost can be measured
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
        "OMP_NUM_THREADS": str(wanted.threads),
        "PYTHONPATH": str(Path(radquant.__file__).parents[1]),
        "PYTHONSAFEPATH": "1",  # no module of the working directory is meant
    }
    wanted.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wanted.folder, prefix=".vllm-") as folder:
        asked, answer = Path(folder) / "job.json", Path(folder) / "done.json"
        shown = shown_images(task, opened.held, Path(folder) / "features")
        asked.write_text(json.dumps({**job, **shown}), encoding="utf-8")
        command = [str(wanted.python), "-m", vllm_decoding.__name__, str(asked), str(answer)]
        if code := subprocess.run(command, env=environment, check=False).returncode:
            raise UserError(f"vLLM {how_it_ended(code)}")
        done: dict[str, Any] = read_json(answer)
    return done
