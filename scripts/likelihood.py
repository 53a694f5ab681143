"""Compute the teacher-forced negative log-likelihood of every reference."""

import argparse
import os
from pathlib import Path

from radquant.cli import run
from radquant.generation import engines, stage


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    stage.add_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="PARQUET", help="likelihoods")
    parser.add_argument("--metrics", type=Path, required=True, metavar="JSON", help="measures")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    template, reports, examples = stage.read_reports(args)
    pictures = stage.report_images(args, reports)

    import pandas as pd
    import torch

    from radquant import prompts
    from radquant.checkpoints.loading import is_simulated, load, resolve_device, resolve_dtype
    from radquant.files import write_json, write_table
    from radquant.generation import batching, lean_likelihood, likelihood, measures
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

    context = context_length(loaded.model)
    limit = None if context is None else context - stored_length(loaded)
    made = [
        prompts.chat_prompt(
            *(tokenizer, template, row, examples, args.target, limit),
            with_answer=True,
            images=images,
            processor=processor,
        )
        for row, images in zip(reports, pictures, strict=True)
    ]
    likelihood.check_answers(made, args.eval, args.target)
    made = behind_stored(made, loaded)
    plan = batching.plan_batches(made, args.batch_size)
    task = engines.Task(
        label=f"likelihood {args.precision}",
        batches=engines.batches_of(made, plan),
        shared=batching.shared_prefix(made) if may_share(rounding) else [],
        longest=max(len(prompt.ids) + len(prompt.answer_ids) for prompt in made),
        batch_size=args.batch_size,
    )
    with measures.stopwatch(device) as spent:
        if engine == engines.LEAN:
            work = lean_likelihood.score(lean, task, loaded.runtime.prefix)
        else:
            work = likelihood.score(loaded, task, processor)
    places = [place for batch in plan for place in batch]
    nll = dict(zip(places, work.results, strict=True))

    table = pd.DataFrame(
        {
            "id": [prompt.id for prompt in made],
            "nll": [nll[i] for i in range(len(made))],
            "tokens": [len(prompt.answer_ids) for prompt in made],
        }
    )
    likelihood.check_finite(table)
    write_table(args.output, table)
    write_json(
        args.metrics,
        {
            **measures.environment(device, args.threads, dtype),
            "precision": args.precision,
            "engine": engine,
            "kernel": loaded.kernel,
            "reports": len(made),
            "images": sum(len(prompt.images) for prompt in made),
            "tokens": int(table["tokens"].sum()),
            "prompt_tokens": sum(prompt.length for prompt in made),
            "truncated_prompts": sum(prompt.truncated > 0 for prompt in made),
            "wall_seconds": spent.wall_seconds,
            "cpu_seconds": spent.cpu_seconds,
            "load_seconds": loading.wall_seconds,
            "peak_process_bytes": measures.peak_process_bytes(),
            "peak_device_bytes": measures.peak_device_bytes(device),
            "layers_quantized": loaded.layers_quantized,
            "activation_layers": loaded.activation_layers,
            "simulated": is_simulated(loaded),
            "activations": as_values(rounding),
            "kv_cache": as_values(kv_cache),
            "lm_head": as_values(lm_head),
            "stored_prefix_tokens": stored_length(loaded),
            "shared_prefix_tokens": work.shared_tokens,
            "batch_size": args.batch_size,
            "too_large_batches": work.too_large,
            "examples": args.examples,
        },
    )


if __name__ == "__main__":
    run(main)
