"""Serve a model or checkpoint over an OpenAI-compatible endpoint, with vLLM or our own engine."""

import argparse
import ipaddress
import os
import signal
import sys
from pathlib import Path

from radquant.cli import run
from radquant.errors import UserError


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="original model or checkpoint")
    add(
        "--engine",
        choices=["vllm", "auto", "lean", "transformers"],
        default="vllm",
        help="vllm, or what the evaluation writes with, greedily: auto is lean, this package's own "
        "decoder for CPUs, where that can run the model, and transformers elsewhere (default: "
        "%(default)s)",
    )
    add(
        "--python",
        type=Path,
        default=Path(sys.executable),
        metavar="FILE",
        help="for vllm: the Python of the environment that has it (default: this one)",
    )
    add("--dry-run", action="store_true", help="for vllm: print the command and do no more")
    add("--name", help="the model's name for clients (default: the directory's)")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any but the default lets others in, without password or "
        "encryption (default: %(default)s)",
    )
    add("--port", type=int, default=8000, help="default: %(default)s")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    add(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="number format of the computation; auto is bfloat16, and float32 for our own engines "
        "on a CPU",
    )
    add(
        "--max-model-len",
        type=int,
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
        type=int,
        default=256,
        metavar="M",
        help="for our own engines: most tokens of an answer whose request does not say "
        "(%(default)s)",
    )
    for option in ("activations", "kv-cache", "lm-head"):
        add(
            f"--{option}",
            metavar="JSON",
            help=f"for our own engines: {option.replace('-', '_')} of the precision to serve, as "
            'in config.yaml, such as {"bits": 8}',
        )
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (%(default)s)")
    add("--trust-remote-code", action="store_true", help="run Python code that the model brings")
    return parser.parse_args()


def warn_if_open(host: str) -> None:
    try:
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside:
        print(
            f"warning: whoever reaches {host} may use this server; it asks for no password and "
            "encrypts nothing",
            file=sys.stderr,
        )


def serve_with_vllm(args: argparse.Namespace, name: str) -> None:
    """Become vLLM's server, which then gets the signals."""
    from radquant.checkpoints.loading import resolve_device
    from radquant.generation.vllm_limits import ENVIRONMENT
    from radquant.serving.vllm_command import serve_command, shown

    command = serve_command(
        args.python,
        args.checkpoint,
        name,
        args.host,
        args.port,
        "bfloat16" if args.dtype == "auto" else args.dtype,
        on_cpu=resolve_device(args.device).type == "cpu",
        max_model_len=args.max_model_len,
        chat_template=args.chat_template,
        trust_remote_code=args.trust_remote_code,
    )
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": str(args.threads)}
    print(shown(environment, command), flush=True)
    if not args.dry_run:
        os.execve(command[0], command, {**os.environ, **environment})


def serve_here(args: argparse.Namespace, name: str) -> None:
    """Answer until Ctrl-C or SIGTERM."""
    import torch

    from radquant.checkpoints.loading import load, resolve_device, resolve_dtype
    from radquant.generation import engines
    from radquant.generation.lean_decoder import take_over
    from radquant.kernels.choice import use_kernels
    from radquant.serving.answering import served
    from radquant.serving.http_server import open_server
    from radquant.settings.precision import options_of

    torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    dtype = resolve_dtype(args.dtype, device)
    rounding, kv_cache, lm_head = options_of(args.activations, args.kv_cache, args.lm_head)
    loaded = load(
        args.checkpoint, device, dtype, rounding, args.trust_remote_code, kv_cache, lm_head
    )
    engine, lean = engines.choose(args.engine, loaded, rounding), None
    if engine == engines.LEAN:
        lean = take_over(loaded, rounding)
    else:
        use_kernels(loaded)
    if args.chat_template:
        loaded.tokenizer.chat_template = args.chat_template.read_text(encoding="utf-8")
    server = open_server(served(loaded, name, args.max_new_tokens, lean), args.host, args.port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    place = f"http://{args.host}:{server.server_port}"
    how = f"{engine}, {loaded.kernel} kernel, {dtype}"
    print(f"{name} ({how}) at {place}; Ctrl-C ends", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("ending; the answer that is being written is finished first", file=sys.stderr)
    finally:
        server.server_close()


def main() -> None:
    args = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if args.dry_run and args.engine != "vllm":
        raise UserError(f"--dry-run prints vLLM's command; engine {args.engine} has none")
    if args.engine == "vllm" and (args.activations or args.kv_cache or args.lm_head):
        raise UserError(
            "engine vllm rounds no activations, KV cache or head when it serves; use engine auto"
        )
    if args.chat_template and not args.chat_template.is_file():
        raise UserError(f"the chat template {args.chat_template} does not exist; check the path")
    name = args.name or args.checkpoint.resolve().name
    warn_if_open(args.host)
    if args.engine == "vllm":
        serve_with_vllm(args, name)
    else:
        serve_here(args, name)


if __name__ == "__main__":
    run(main)
