"""Tiny random models with a real tokenizer, in the layout of a Hugging Face directory."""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tiny_tokenizers import word_tokenizer
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from radquant.files import write_table
from radquant.quantization import resuming
from radquant.quantization.samples import Sample

SCRIPTS = Path(__file__).parent.parent / "scripts"
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "no", "acute", "effusion", "the", "lungs", "are"]
WORDS += ["clear", "heart", "size", "is", "normal", ".", ":"]


def tiny_llama(
    directory: Path,
    dtype: torch.dtype = torch.float32,
    texts: Iterable[str] = (),
    **overrides: object,
) -> Path:
    """Save a Llama of two layers with grouped-query attention and tied embeddings; its path.

    texts: what it is to read beside WORDS, if anything; then it knows the prompts' words, too.
    """
    torch.manual_seed(0)
    vocabulary = [*WORDS, *more_words(texts)] if texts else WORDS
    config = LlamaConfig(
        **{
            "vocab_size": len(vocabulary),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            **overrides,
        }
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):  # channels of very different size, as in real models
                parameter.copy_(torch.exp(torch.randn_like(parameter)))
            else:
                parameter.mul_(8)
    model.to(dtype).save_pretrained(directory)
    tiny_tokenizer(directory, vocabulary)
    return directory


def tiny_tokenizer(directory: Path, vocabulary: Iterable[str] = WORDS) -> None:
    """Save a tokenizer that knows these words."""
    word_tokenizer(vocabulary).save_pretrained(directory)


def more_words(texts: Iterable[str]) -> list[str]:
    """The words of texts and of the prompts that are none of WORDS, as the tokenizer cuts them."""
    files = sorted((SCRIPTS.parent / "prompts").glob("*.txt"))
    read = [*texts, *(path.read_text(encoding="utf-8") for path in files)]
    cut = pre_tokenizers.Whitespace().pre_tokenize_str
    return sorted({word for text in read for word, _ in cut(text)} - set(WORDS))


def make_stand_out(directory: Path, token: int) -> Path:
    """Let a tiny model's `token` be the one whose channel 0 is large, and what reads it first."""
    tensors = load_file(directory / "model.safetensors")
    words = tensors["model.embed_tokens.weight"]
    words[:, 0] = 0
    words[token] = 0
    words[token, 0] = 100
    tensors["model.layers.0.input_layernorm.weight"][0] = 100
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory


def token_samples(sequences: Iterable[torch.Tensor]) -> list[Sample]:
    """Token ids as samples without images."""
    return [Sample(ids) for ids in sequences]


def token_sequences(count: int, length: int, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, len(WORDS), (length,), generator=generator) for _ in range(count)]


TINY_OPTIONS = ["--bits", "4", "--group-size", "32", "--device", "cpu"]


def write_samples(directory: Path, first: int | None = None) -> Path:
    """A calibration set of random tokens, which may all begin with one `first`; its path."""
    begin = [] if first is None else [first]
    rows = [[*begin, *ids.tolist()] for ids in token_sequences(6, 24)]
    samples = pd.DataFrame({"input_ids": rows})
    write_table(directory / "samples.parquet", samples)
    return directory / "samples.parquet"


def quantize_tiny(
    original: Path, directory: Path, method: str = "awq", bits: int = 4, symmetric: bool = False
) -> Path:
    """Quantize a tiny model by the script itself, to `directory`/checkpoint; its path."""
    command = ["quantize.py", "--model", str(original), *TINY_OPTIONS, "--bits", str(bits)]
    command += ["--method", method, "--calibration", str(write_samples(directory))]
    command += ["--symmetric"] * symmetric
    command += ["--output", str(directory / "checkpoint")]
    with mock.patch.object(sys, "argv", command):
        runpy.run_path(str(SCRIPTS / "quantize.py"), run_name="__main__")
    return directory / "checkpoint"


def store(original: Path, output: Path, *options: str) -> Path:
    """Quantize by the script in groups of 32; the checkpoint's path."""
    command = ["quantize.py", "--model", str(original), "--group-size", "32", "--device", "cpu"]
    with mock.patch.object(sys, "argv", [*command, "--output", str(output), *options]):
        runpy.run_path(str(SCRIPTS / "quantize.py"), run_name="__main__")
    return output


def quantize_after_a_kill(original: Path, output: Path, layers: int, *options: str) -> None:
    """Quantize to `output` by the script, killed as soon as the second of `layers` is finished, and
    by the same command again."""
    command = [sys.executable, str(SCRIPTS / "quantize.py"), "--model", str(original)]
    command += [*options, "--output", str(output)]
    work = output.with_name(f".{output.name}.work")
    started = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (work / resuming.record_name(1)).is_file() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(started.pid, signal.SIGKILL)
    started.communicate()
    finished = resuming.finished_layers(work)
    assert 2 <= finished < layers
    assert not output.exists()
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"going on after {finished} finished layers" in ended.stderr
    assert not work.exists()
