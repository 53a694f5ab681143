"""Time and peak memory of quantizing a model of Mistral 7B's shape, 14.5 GB on disk.

Makes the model with random weights, which cost what real ones do, and random calibration tokens.
Runs scripts/quantize.py on them in a process of its own, and prints what that process used. Needs
20 GB on disk, and 2 more for hidden states.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd
import torch
from measuring import measured, script
from safetensors.torch import save_file
from transformers import MistralConfig

from radquant.files import atomic_directory, read_json, write_json, write_table

LAYERS_A_FILE = 4
SPREAD = 0.02  # standard deviation of the weights, as Mistral is initialised


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--work", type=Path, default=Path("benchmarks/large_model"), help="default: %(default)s")
    add("--layers", type=int, default=32, help="decoder layers (%(default)s)")
    add("--samples", type=int, default=32, help="calibration sequences (%(default)s)")
    add("--tokens", type=int, default=256, help="tokens of each (%(default)s)")
    add("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    add("recipe", nargs="*", metavar="OPTION", help="of scripts/quantize.py, behind a --")
    return parser.parse_args()


def shapes(config: MistralConfig, layer: int) -> dict[str, tuple[int, ...]]:
    """The weights of decoder layer `layer`."""
    width, inner = config.hidden_size, config.intermediate_size
    narrow = config.num_key_value_heads * width // config.num_attention_heads
    inside: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (narrow, width),
        "self_attn.v_proj": (narrow, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    return {f"model.layers.{layer}.{name}.weight": shape for name, shape in inside.items()}


def make_model(directory: Path, layers: int) -> None:
    """A Mistral 7B (v0.3) with random weights in bfloat16, a few layers in each file."""
    config = MistralConfig(
        num_hidden_layers=layers, vocab_size=32768, rope_theta=1e6, sliding_window=None
    )
    ends = {"model.embed_tokens.weight": (config.vocab_size, config.hidden_size)}
    ends["lm_head.weight"] = ends["model.embed_tokens.weight"]
    files = [{**ends, "model.norm.weight": (config.hidden_size,)}]
    for first in range(0, layers, LAYERS_A_FILE):
        several = range(first, min(first + LAYERS_A_FILE, layers))
        files.append({name: shape for n in several for name, shape in shapes(config, n).items()})
    generator = torch.Generator().manual_seed(0)
    places = {}
    with atomic_directory(directory) as part:
        for number, names in enumerate(files):
            name = f"model-{number + 1:05}-of-{len(files):05}.safetensors"
            save_file(
                {each: random(shape, generator) for each, shape in names.items()}, part / name
            )
            places |= dict.fromkeys(names, name)
        size = sum(file.stat().st_size for file in part.glob("*.safetensors"))
        index = {"metadata": {"total_size": size}, "weight_map": places}
        write_json(part / "model.safetensors.index.json", index)
        config.architectures = ["MistralForCausalLM"]
        config.dtype = "bfloat16"
        config.save_pretrained(part)


def random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, SPREAD, generator=generator)


def make_calibration(path: Path, samples: int, tokens: int) -> None:
    ids = torch.randint(0, 32768, (samples, tokens), generator=torch.Generator().manual_seed(1))
    write_table(path, pd.DataFrame({"input_ids": list(ids.numpy())}))


def main() -> None:
    args = parse_arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    model, samples = args.work / "model", args.work / "samples.parquet"
    if not (model / "config.json").is_file():
        print("making the model", file=sys.stderr, flush=True)
        make_model(model, args.layers)
    make_calibration(samples, args.samples, args.tokens)
    output = args.work / "quantized"
    options = ["--model", model, "--calibration", samples, "--output", output]
    used = measured(
        script("quantize.py", *options, "--threads", args.threads, *args.recipe), args.threads
    )
    record = read_json(output / "quantization.json")
    used |= {
        "recipe": record["recipe"],
        "threads": args.threads,
        "layers": args.layers,
        "calibration_tokens": args.samples * args.tokens,
        "model_bytes": sum(file.stat().st_size for file in model.glob("*.safetensors")),
        "checkpoint_bytes": sum(file.stat().st_size for file in output.glob("*.safetensors")),
    }
    print(json.dumps(used, indent=2))


if __name__ == "__main__":
    main()
