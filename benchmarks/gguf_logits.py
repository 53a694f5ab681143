"""How near the logits of a GGUF file in the engines here are to those of llama.cpp.

For each type, llama.cpp's quantizer stores the given file in it, and then the stored values as
float32. With float32, llama.cpp computes as the engines here do, so what is left is the error of
reading. With the type itself, its kernels round the inputs of each product to 8 bits in groups of
32 or 256. That is done here too, to compare. Differences of llama.cpp with itself stand beside.

  python benchmarks/gguf_logits.py MODEL.gguf --original DIR --texts results/data/eval.csv \
      --python ENV/bin/python --types Q4_0 Q4_K_M Q8_0 --output figures.json

ENV holds xllamacpp and ik-llama-cpp-python (see gguf_logits_llama_cpp.py).
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from radquant.checkpoints.gguf_model import EMBEDDING, HEAD
from radquant.checkpoints.loading import load
from radquant.files import read_json, write_json
from radquant.gguf.reading import FLOAT_TYPES, read_model
from radquant.model_files import files_beside
from radquant.tokenizer_files import read_tokenizer

HERE = Path(__file__).parent
AS_GIVEN = "given"
NOISE = 1e-6  # relative, at the embedding


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", type=Path, help="a GGUF file of the original")
    add("--original", type=Path, required=True, metavar="DIR")
    add("--texts", type=Path, required=True, metavar="CSV")
    add("--column", default="findings")
    add("--count", type=int, default=20, help="of texts")
    add("--tokens", type=int, default=64, help="at most, of a text")
    add("--types", nargs="+", default=["Q4_0", "Q4_K_M", "Q8_0"], help=f"or {AS_GIVEN}")
    add("--python", type=Path, required=True, help="of an environment with llama.cpp")
    add("--output", type=Path, required=True, metavar="JSON")
    return parser.parse_args()


def call(python: Path, folder: Path, **job: Any) -> None:
    file = folder / "job.json"
    file.write_text(json.dumps(job, default=str))
    quiet = subprocess.DEVNULL
    subprocess.run(
        [python, HERE / "gguf_logits_llama_cpp.py", file], check=True, stdout=quiet, stderr=quiet
    )


def directory_of(file: Path, original: Path, folder: Path) -> Path:
    """A checkpoint with that GGUF file."""
    folder.mkdir()
    shutil.move(file, folder / "model.gguf")
    for name in files_beside(original):
        if name != "source.json":
            shutil.copyfile(original / name, folder / name)
    quantization = {"quant_method": "gguf", "file": "model.gguf"}
    config = read_json(original / "config.json") | {"quantization_config": quantization}
    write_json(folder / "config.json", config)
    return folder


def in_groups_of_32(x: Tensor) -> Tensor:
    """x rounded as llama.cpp's quantize_row_q8_0: 8 bits, a float16 scale for 32 values."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    most = blocks.abs().amax(-1, keepdim=True)
    codes = torch.round(blocks * torch.where(most > 0, 127 / most, 0.0))
    return (codes * (most / 127).half().float()).reshape(x.shape)


def in_groups_of_256(x: Tensor) -> Tensor:
    """x rounded as llama.cpp's quantize_row_q8_K: 8 bits, a float32 scale for 256 values."""
    blocks = x.reshape(*x.shape[:-1], -1, 256)
    most = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    inverse = torch.where(most != 0, -127 / most, 0.0)
    codes = torch.round(blocks * inverse).clamp(max=127)
    return (codes * torch.where(inverse != 0, 1 / inverse, 0.0)).reshape(x.shape)


def round_inputs(model: nn.Module, directory: Path) -> None:
    """Let the inputs of all products with packed weights be rounded as llama.cpp's kernels do."""
    file = read_model(directory / "model.gguf")
    stored = {name: file.tensors[own] for own, name in file.hugging_face_names().items()}

    def hook(rounded: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
        return lambda _, inputs: rounded(inputs[0])

    for name, module in model.named_modules():
        weight = f"{name}.weight"
        if weight == HEAD and HEAD not in stored:
            weight = EMBEDDING
        if hasattr(module, "in_features") and stored[weight].type not in FLOAT_TYPES:
            wide = stored[weight].type.endswith(("_K", "_XS", "_XXS", "_S", "_M"))
            module.register_forward_pre_hook(hook(in_groups_of_256 if wide else in_groups_of_32))


class TableOfGELU(nn.Module):
    """llama.cpp's GELU (ggml_vec_gelu_f32): its tanh form, from a table of float16."""

    def forward(self, x: Tensor) -> Tensor:
        looked_up = nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, torch.zeros_like(x), torch.where(x >= 10, x, looked_up))


def ours(directory: Path, texts: list[list[int]], folder: Path, way: str) -> None:
    """Write our logits.

    way: "exact"; "table", with llama.cpp's GELU if the model has one; or "rounded", also with
    inputs of 8 bits. "noise" is rounded after some noise.
    """
    model = load(directory).model
    if way != "exact" and model.config.get_text_config().model_type.startswith("gemma"):
        for layer in model.get_decoder().layers:
            layer.mlp.act_fn = TableOfGELU()
    if way in ("rounded", "noise"):
        round_inputs(model, directory)
    if way == "noise":
        torch.manual_seed(0)
        model.get_input_embeddings().register_forward_hook(
            lambda _, __, x: x * (1 + NOISE * torch.randn_like(x))
        )
    folder.mkdir()
    with torch.no_grad():
        for number, text in enumerate(texts):
            logits = model(torch.tensor([text])).logits[0].float()
            np.save(folder / f"{number}.npy", logits.numpy())


def compared(one: Path, other: Path, texts: list[list[int]]) -> dict[str, float]:
    """Largest difference of a logit, mean KL(one ‖ other), of the next token's NLL in nats, and the
    share of places with the same likeliest token."""
    most, divergence, likelihood, same = [], [], [], []
    for number, text in enumerate(texts):
        left, right = (
            torch.from_numpy(np.load(folder / f"{number}.npy")) for folder in (one, other)
        )
        most.append(float((left - right).abs().max()))
        same.append((left.argmax(-1) == right.argmax(-1)).double())
        left, right = left.double().log_softmax(-1), right.double().log_softmax(-1)
        divergence.append((left.exp() * (left - right)).sum(-1))
        following = torch.tensor(text[1:])[:, None]
        likelihood.append((left - right)[:-1].gather(1, following)[:, 0])
    return {
        "largest": max(most),
        "divergence": float(torch.cat(divergence).mean()),
        "likelihood": float(torch.cat(likelihood).mean()),
        "same_choice": float(torch.cat(same).mean()),
    }


def of_type(
    wanted: argparse.Namespace, kind: str, texts: list[list[int]], folder: Path
) -> dict[str, dict[str, float]]:
    packed, plain = folder / "packed.gguf", folder / "plain.gguf"
    if kind == AS_GIVEN:
        shutil.copyfile(wanted.model, packed)
    else:
        call(wanted.python, folder, model=wanted.model.resolve(), output=packed, type=kind)
    call(wanted.python, folder, model=packed, output=plain, type="F32")
    for name, file, library, cache, repack in (
        ("packed", packed, "x", "f32", True),
        ("packed, plain kernels", packed, "x", "f32", False),
        ("packed, fork", packed, "ik", "f16", True),
        ("float32", plain, "x", "f32", True),
        ("float32, cache of float16", plain, "x", "f16", True),
        ("float32, fork", plain, "ik", "f16", True),
    ):
        job = {"model": file, "library": library, "cache": cache, "repack": repack}
        call(wanted.python, folder, **job, texts=texts, output=folder / name)
    directory = directory_of(packed, wanted.original, folder / "directory")
    for way in ("exact", "table", "rounded", "noise"):
        ours(directory, texts, folder / way, way)
    pairs = {
        "float32 copy: ours, llama.cpp": ("exact", "float32"),
        "float32 copy: ours with llama.cpp's GELU, llama.cpp": ("table", "float32"),
        "float32 copy: llama.cpp, fork": ("float32", "float32, fork"),
        "float32 copy: llama.cpp, its cache of float16": ("float32", "float32, cache of float16"),
        "file: ours, llama.cpp": ("exact", "packed"),
        "file: ours with 8-bit inputs, llama.cpp": ("rounded", "packed"),
        "file: llama.cpp, fork": ("packed", "packed, fork"),
        "file: llama.cpp, its plain kernels": ("packed", "packed, plain kernels"),
        "file: ours, ours with 8-bit inputs": ("exact", "rounded"),
        "file: ours with 8-bit inputs, after noise of 1e-6": ("rounded", "noise"),
    }
    return {
        name: compared(folder / one, folder / other, texts) for name, (one, other) in pairs.items()
    }


def main() -> None:
    wanted = parse_arguments()
    tokenizer = read_tokenizer(wanted.original)
    column = pd.read_csv(wanted.texts)[wanted.column].dropna().head(wanted.count)
    texts = [tokenizer(text)["input_ids"][: wanted.tokens] for text in column]
    found: dict[str, Any] = {"texts": len(texts), "tokens": sum(map(len, texts)), "types": {}}
    for kind in wanted.types:
        with tempfile.TemporaryDirectory(dir=wanted.output.parent) as folder:
            found["types"][kind] = of_type(wanted, kind, texts, Path(folder))
        write_json(wanted.output, found)
        print(f"\n{kind}")
        for name, row in found["types"][kind].items():
            print(
                f"| {name} | {row['largest']:.2g} | {row['divergence']:.2g} | "
                f"{row['likelihood']:+.2g} | {row['same_choice']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
