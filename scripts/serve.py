"""Serve a model or checkpoint over an OpenAI-compatible endpoint, with vLLM or our own engine."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from radquant.bounds import between
from radquant.cli import new_parser, run
from radquant.generation.engines.kind import Address, Wanted
from radquant.serving.serve import serve
from radquant.settings import engines, stages
from radquant.settings.options import parse

EXAMPLE = "python scripts/serve.py models/SmolLM2-awq --engine auto"
KEY = "RADQUANT_API_KEY"


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="original model or checkpoint")
    add(
        "--engine",
        choices=engines.names(),
        default="vllm",
        help="vllm, or what the evaluation writes with, greedily. auto is lean where that can run "
        "the model, and transformers elsewhere. lean is this package's own decoder for CPUs",
    )
    add(
        "--python",
        type=Path,
        default=Path(sys.executable),
        metavar="FILE",
        help="for vllm and llama.cpp: the Python of their environment (default: this one)",
    )
    add("--dry-run", action="store_true", help="for vllm: print the command and do no more")
    add("--name", help="the model's name for clients (default: the directory's)")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any but the default lets others in, without password or "
        "encryption",
    )
    add("--port", type=between("--port", int, 0, 65535), default=8000, help="port to listen on")
    add(
        "--max-model-len",
        type=between("--max-model-len", int, 1, 1e9),
        metavar="N",
        help="for vllm: most tokens of prompt and answer (default: the model's limit)",
    )
    add(
        "--chat-template",
        type=Path,
        metavar="FILE",
        help="Jinja template for a model that brings none (default: the model's own)",
    )
    add(
        "--max-new-tokens",
        type=between("--max-new-tokens", int, 1, 1e6),
        default=256,
        metavar="M",
        help="for our own engines: most tokens of an answer whose request does not say",
    )
    add(
        "--batch-size",
        type=between("--batch-size", int, 1, 1024),
        default=32,
        metavar="N",
        help="for engine lean: most answers that are written at once",
    )
    add(
        "--api-key",
        metavar="KEY",
        help="what clients must send (Authorization: Bearer KEY); the environment variable "
        f"{KEY} does the same and is not shown to other users of this machine",
    )
    add(
        "--deadline",
        type=between("--deadline", float, 1, 1e6),
        default=600,
        metavar="SECONDS",
        help="for our own engines: a request that takes longer is given up",
    )
    return parse(parser, stages.SERVE)


def main() -> None:
    args, settings = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    wanted = Wanted(
        model=args.checkpoint,
        device=settings.compute.device,
        dtype=settings.compute.dtype,
        activations=settings.precision.activations,
        kv_cache=settings.precision.kv_cache,
        lm_head=settings.precision.lm_head,
        threads=settings.compute.threads,
        trust_remote_code=settings.model.trust_remote_code,
        chat_template=args.chat_template,
        date=settings.task.date,
        python=args.python,
    )
    name = args.name or args.checkpoint.resolve().name
    address = Address(name, args.host, args.port, args.max_model_len)
    serve(
        *(args.engine, wanted, address, args.max_new_tokens, args.batch_size, args.dry_run),
        key=args.api_key or os.environ.get(KEY),
        deadline=args.deadline,
    )


if __name__ == "__main__":
    run(main)
