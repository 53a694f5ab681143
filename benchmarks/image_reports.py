"""CPU seconds that a report with an image costs MedGemma 1.5 4B's language model, by engine.

    python benchmarks/image_reports.py --output image_reports.json

The likelihood of a reference behind an image, a few words and a shape: random weights with all of
the real widths and two numbers of layers. Their difference is what a layer costs, and 34 such
layers with what is left (embeddings, the head over the answer) are what the real model would take.
What makes features of the image is not counted: it runs once for all precisions. Each way is a
process of its own, so that its peak memory is its own.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from comparing import table
from measuring import measured
from torch import nn

from radquant.checkpoints.loading import DTYPES, Loaded, weight_bytes
from radquant.checkpoints.parts import without_vision
from radquant.files import write_json
from radquant.generation import lean_likelihood, lean_steps, transformers_likelihood
from radquant.generation.lean_decoder import take_over
from radquant.image_files import ImageFile
from radquant.kernels.choice import use_kernels
from radquant.packed.linear import PackedLinear
from radquant.prompts import Prompt
from radquant.runtime.runtime_file import Runtime
from radquant.settings.precision import Activations
from radquant.vision.features import Features, ImageFeatures
from radquant.vision.handing import hand_out

LAYERS, GROUP = 34, 128
TEXT = {
    "vocab_size": 262208,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 1024,
}
IMAGE_TOKENS = 256
# name: (engine, whether layers are packed in 4 bits, dtype, bits of activations)
WAYS: dict[str, tuple[str, bool, str, int | None]] = {
    "transformers bf16": ("transformers", False, "bfloat16", None),
    "transformers W4A16": ("transformers", True, "bfloat16", None),
    "lean original bf16": ("lean", False, "bfloat16", None),
    "lean W4A16": ("lean", True, "bfloat16", None),
    "lean W4A8": ("lean", True, "bfloat16", 8),
}
BASE = "transformers bf16"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    add("--layers", type=int, nargs=2, default=[1, 3], metavar="N", help="(%(default)s)")
    add("--text-tokens", type=int, default=60, help="of the prompt, around the image")
    add("--answer-tokens", type=int, default=100)
    add("--repeats", type=int, default=3, help="the fastest counts (%(default)s)")
    add("--threads", type=int, default=1)
    add("--output", type=Path, required=True, metavar="JSON", help="figures")
    add("--only", choices=WAYS, help=argparse.SUPPRESS)  # what a process of its own does
    return parser.parse_args()


def random_model(layers: int, packed: bool, dtype: torch.dtype) -> Any:
    """The language model with random weights; packed layers hold any integers."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    config = Gemma3Config(
        text_config={**TEXT, "num_hidden_layers": layers},
        vision_config={"num_hidden_layers": 1},
        mm_tokens_per_image=IMAGE_TOKENS,
        image_token_index=262144,
    )
    with torch.device("meta"):
        model = Gemma3ForConditionalGeneration(config).to(dtype)
    without_vision(model)
    text = model.get_decoder()
    for name, linear in list(text.layers.named_modules()) if packed else []:
        if isinstance(linear, nn.Linear):
            layer = PackedLinear(linear.in_features, linear.out_features, 4, GROUP)
            for words in (layer.qweight, layer.qzeros):
                words.random_(-(2**31), 2**31)
            layer.scales.uniform_(0.001, 0.003)
            text.layers.set_submodule(name, layer)
    model.tie_weights()
    made: dict[int, nn.Parameter] = {}  # the head is the embedding
    some = torch.randn(1 << 20) * 0.02  # again and again: all of them would take minutes
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:
                values = torch.zeros(parameter.shape, dtype=dtype)
                if parameter.ndim > 1:  # norms add 1 to what they hold
                    for part in values.view(-1).split(len(some)):
                        part.copy_(some[: len(part)])
                made[id(parameter)] = nn.Parameter(values, requires_grad=False)
            setattr(module, name, made[id(parameter)])
    # Their buffers are no parameters and were never filled.
    text.rotary_emb = type(text.rotary_emb)(text.config)
    text.embed_tokens.embed_scale = torch.tensor(TEXT["hidden_size"] ** 0.5, dtype=dtype)
    return model.eval()


def report(args: argparse.Namespace, dtype: torch.dtype) -> tuple[Prompt, Features]:
    """A prompt with an image, its answer, and what stands for the image."""
    file = ImageFile(Path("image.png"), "report", "images", "0" * 64)
    vectors = torch.randn(IMAGE_TOKENS, TEXT["hidden_size"]).to(dtype)
    before = args.text_tokens // 2
    types = [0] * before + [1] * IMAGE_TOKENS + [0] * (args.text_tokens - before)
    ids = torch.randint(3, 200_000, [len(types)]).where(torch.tensor(types) == 0, 262144)
    answer = torch.randint(3, 200_000, [args.answer_tokens]).tolist()
    prompt = Prompt("report", "", ids.tolist(), 0, "", answer, images=(file,), types=tuple(types))
    dtype_name = str(dtype).removeprefix("torch.")
    return prompt, Features("", "", dtype_name, held={file.sha256: ImageFeatures(vectors)})


def seconds(args: argparse.Namespace, layers: int) -> float:
    """The least CPU seconds of one likelihood."""
    engine, packed, dtype_name, bits = WAYS[args.only]
    dtype = DTYPES[dtype_name]
    model = random_model(layers, packed, dtype)
    prompt, features = report(args, dtype)
    loaded = Loaded(model, None, 0, 0, weight_bytes(model), "none", Runtime(), None)
    if engine == "lean":
        lean = take_over(loaded, None if bits is None else Activations(bits=bits))
        lean_steps.begin(lean, [], len(prompt.ids) + len(prompt.answer_ids))
    else:
        use_kernels(loaded)
        hand_out(model)
    times = []
    for _ in range(args.repeats):
        started = time.process_time()
        if engine == "lean":
            lean_likelihood.answer_nll(lean, [prompt], 1, features)
        else:
            transformers_likelihood.answer_nll(model, [prompt], 0, features=features)
        times.append(time.process_time() - started)
    return min(times)


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Figures of one way, in this process."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    few, more = sorted(args.layers)
    found = {layers: seconds(args, layers) for layers in (few, more)}
    layer = (found[more] - found[few]) / (more - few)
    rest = found[few] - few * layer
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"layer": layer, "rest": rest, "whole": LAYERS * layer + rest, "peak_bytes": peak}


def run_apart(args: argparse.Namespace, way: str) -> dict[str, float]:
    """Figures of one way, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, __file__, "--only", way, "--output", str(file)]
        command += ["--layers", *map(str, args.layers)]
        for name in ("text_tokens", "answer_tokens", "repeats", "threads"):
            command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
        measured(command, args.threads)
        return dict(json.loads(file.read_text()))


def main() -> None:
    args = parse_arguments()
    if args.only:
        write_json(args.output, measure(args))
        return
    found = {}
    for way in args.ways:
        print(f"{way} ...", file=sys.stderr, flush=True)
        found[way] = run_apart(args, way)
    write_json(args.output, found)
    rows = []
    for way, figures in found.items():
        ratio = found.get(BASE, figures)["whole"] / figures["whole"]
        by_layer = found.get(BASE, figures)["layer"] / figures["layer"]
        rows.append(
            [
                *(way, f"{figures['layer']:.3f} ({by_layer:.2f}×)", f"{figures['rest']:.2f}"),
                *(
                    f"{figures['whole']:.1f} ({ratio:.2f}×)",
                    f"{figures['peak_bytes'] / 1e9:.2f} GB",
                ),
            ]
        )
    tokens = f"{IMAGE_TOKENS} tokens of an image, {args.text_tokens} of text"
    print(f"CPU seconds of a report: {tokens}, {args.answer_tokens} of the reference\n")
    header = ["", "a layer", "the rest", f"{LAYERS} layers and the rest", "peak memory"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
