"""Let a model write the reports of one shard, greedily, and measure what that costs."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from radquant.cli import run
from radquant.generation import engines, stage


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    stage.add_arguments(parser)
    parser.add_argument(
        "--reports",
        type=int,
        metavar="N",
        help="write the first N reports of --eval only (default: all)",
    )
    parser.add_argument("--shard", type=int, default=1, metavar="I", help="from 1 (%(default)s)")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="of N (%(default)s)")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=128,
        metavar="M",
        help="most tokens of an output (%(default)s)",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="STRING",
        help="string that ends an output and is not part of it; may be given again",
    )
    parser.add_argument(
        "--vllm-python",
        type=Path,
        metavar="FILE",
        help="for engine vllm: the Python of the environment that has it (docs/serving.md)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="PARQUET", help="outputs")
    parser.add_argument("--metrics", type=Path, required=True, metavar="JSON", help="measures")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    template, reports, examples = stage.read_reports(args, args.reports)
    pictures = stage.report_images(args, reports)
    if args.engine == engines.VLLM:
        from radquant.generation import vllm_engine

        script = Path(__file__).with_name("generate_vllm.py")
        vllm_engine.write_shard(args, script, template, reports, examples)
        return

    import torch

    from radquant import prompts
    from radquant.checkpoints.loading import is_simulated, load, resolve_device, resolve_dtype
    from radquant.files import write_json, write_table
    from radquant.generation import (
        batching,
        lean_engine,
        measures,
        output_tables,
        transformers_engine,
    )
    from radquant.generation.lean_decoder import take_over
    from radquant.generation.prefix import behind_stored, context_length, may_share, stored_length
    from radquant.generation.vision import load_processor
    from radquant.kernels.choice import use_kernels
    from radquant.settings.precision import as_values, options_of

    torch.set_num_threads(args.threads)
    rounding, kv_cache, lm_head = options_of(args.activations, args.kv_cache, args.lm_head)
    device = resolve_device(args.device)
    dtype = resolve_dtype(args.dtype, device)
    with measures.stopwatch(device) as loading:
        loaded = load(
            args.model, device, dtype, rounding, args.trust_remote_code, kv_cache, lm_head
        )
        tokenizer = loaded.tokenizer
        processor = load_processor(args.model, tokenizer) if args.image_root else None
        engine = engines.choose(args.engine, loaded, rounding, processor)
        if engine == engines.LEAN:
            lean = take_over(loaded, rounding)
        else:
            use_kernels(loaded)

    ends = prompts.end_token_ids(tokenizer, loaded.model.generation_config)
    context = context_length(loaded.model)
    taken = args.max_new_tokens + stored_length(loaded)
    limit = None if context is None else context - taken
    made = [
        prompts.chat_prompt(
            *(tokenizer, template, row, examples, args.target, limit),
            images=images,
            processor=processor,
        )
        for row, images in zip(reports, pictures, strict=True)
    ]
    made = behind_stored(made, loaded)
    plan = batching.plan_batches(made, args.batch_size)
    task = engines.Task(
        label=f"generate {args.precision}",
        batches=engines.batches_of(made, batching.batches_of_shard(plan, args.shard, args.shards)),
        shared=batching.shared_prefix(made) if may_share(rounding) else [],
        longest=max(len(prompt.ids) for prompt in made) + args.max_new_tokens,
        batch_size=args.batch_size,
        max_new_tokens=args.max_new_tokens,
        end_ids=tuple(ends),
        stop=tuple(args.stop),
    )
    with measures.stopwatch(device) as spent:
        if engine == engines.LEAN:
            work = lean_engine.write(lean, tokenizer, task, loaded.runtime.prefix)
        else:
            work = transformers_engine.write(loaded, task, processor)

    order = {row["id"]: place for place, row in enumerate(reports)}
    write_table(args.output, output_tables.outputs_table(task.prompts, work.results, order))
    assert work.pace is not None  # which every engine that writes keeps
    write_json(
        args.metrics,
        {
            **measures.environment(device, args.threads, dtype),
            **output_tables.output_counts(task.prompts, work.results, spent.wall_seconds),
            "precision": args.precision,
            "shard": args.shard,
            "shards": args.shards,
            "engine": engine,
            "kernel": loaded.kernel,
            "batches": len(task.batches),
            "wall_seconds": spent.wall_seconds,
            "cpu_seconds": spent.cpu_seconds,
            "latency_seconds": measures.latency_summary(work.seconds),
            **asdict(work.pace),
            "load_seconds": loading.wall_seconds,
            "peak_process_bytes": measures.peak_process_bytes(),
            "peak_device_bytes": measures.peak_device_bytes(device),
            "weight_bytes": loaded.weight_bytes,
            "layers_quantized": loaded.layers_quantized,
            "activation_layers": loaded.activation_layers,
            "simulated": is_simulated(loaded),
            "activations": as_values(rounding),
            "kv_cache": as_values(kv_cache),
            "lm_head": as_values(lm_head),
            "stored_prefix_tokens": stored_length(loaded),
            "shared_prefix_tokens": work.shared_tokens,
            "max_new_tokens": args.max_new_tokens,
            "batch_size": args.batch_size,
            "too_large_batches": work.too_large,
            "examples": args.examples,
            "images": sum(len(prompt.images) for prompt in task.prompts),
        },
    )


if __name__ == "__main__":
    run(main)
