"""GPTQModel as the quantizer; runs in the environment of envs/gptqmodel.txt."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from radquant.errors import UserError
from radquant.failures import loading
from radquant.files import read_json
from radquant.quantization import other_packages
from radquant.quantization.job import Job
from radquant.quantization.original_model import Original
from radquant.settings.recipe import WHOLE_ROW, Recipe

# GPTQModel hands what the first layer is given on to all of them.
ONE_ROTARY = (
    "GPTQModel gives all layers of this model the rotary embedding of its first, so others are "
    "calibrated on activations that are not quite the model's"
)


def quantize(job: Job, recipe: Recipe) -> None:
    """Let GPTQModel quantize the model of `job`, and write the checkpoint like one of ours.

    Raises UserError if GPTQModel cannot do the recipe or the model.
    """
    original, device = other_packages.prepare("gptqmodel", recipe, job)
    sequences = other_packages.read_sequences(job.calibration, original.config, "GPTQModel")
    calibration = other_packages.calibration_record(job, sequences)
    caveat = ONE_ROTARY if has_two_rotaries(original.config) else None
    if caveat:
        print(f"warning: {caveat}", file=sys.stderr)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.output.parent, prefix=".gptqmodel-") as directory:
        with quiet():
            model, seen = run_gptqmodel(job, recipe, original, sequences, device)
            tensors, quantization = save(model, Path(directory))
        record = {
            "tool": other_packages.tool_record("gptqmodel")
            | ({"caveat": caveat} if caveat else {}),
            "calibration": calibration,
            "checks": {"calibration_tokens_of_every_layer": seen},
            "device": device,
        }
        other_packages.write_result(original, job, tensors, quantization, recipe, record)


def has_two_rotaries(config: Any) -> bool:
    """Whether layers of different types turn queries and keys by different angles, as Gemma 3's."""
    rotary = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return sum(isinstance(each, dict) for each in rotary.values()) > 1


def report(layers: int) -> Callable[..., None]:
    """A callback of GPTQModel's that says on stderr how many of `layers` are done."""
    started = time.monotonic()

    def layer_complete(layer_idx: int, submodule_finalized: bool) -> None:
        if submodule_finalized:
            print(
                f"quantize gptqmodel: {layer_idx + 1}/{layers} layers, "
                f"{time.monotonic() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )

    return layer_complete


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what goes to stdout: GPTQModel draws its progress there, in thousands of lines."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        yield


def use_every_token(model: Any, tokens: int) -> None:
    """Have GPTQModel take all samples, and see that it does, by their number of tokens.

    It drops samples of fewer than 11 tokens: its `quantize` has an option for that, which it
    passes to nothing.
    """
    prepare = model.prepare_dataset

    def prepare_all(**options: Any) -> Any:
        batches = prepare(**options, calibration_data_min_length=0)
        taken = sum(torch.as_tensor(batch["input_ids"]).numel() for batch in batches)
        if taken != tokens:
            raise UserError(
                f"GPTQModel took {taken} of {tokens} calibration tokens; this is another release "
                "than envs/gptqmodel.txt names"
            )
        return batches

    model.prepare_dataset = prepare_all


def run_gptqmodel(
    job: Job,
    recipe: Recipe,
    original: Original,
    sequences: list[list[int]],
    device: str,
) -> tuple[Any, int]:
    """Run GPTQModel on the calibration `sequences`.

    Returns its model, packed, and the fewest tokens that any layer saw, by its own count.
    """
    other_packages.without_torchvision()
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(
        bits=recipe.bits,
        group_size=recipe.group_size,
        sym=not recipe.zero_point,
        # The first version of the format has no place for a zero of 0, which such a grid may have.
        format="gptq_v2" if recipe.zero_point else "gptq",
        desc_act=recipe.desc_act,
        # GPTQModel's own default, where there are groups: its order keeps them together.
        act_group_aware=not recipe.desc_act and recipe.group_size != WHOLE_ROW,
        damp_percent=recipe.damp_percent,
        device=device,
        # The default compiles an extension first, which needs a compiler and a minute.
        pack_impl="original",
    )
    with loading(job.model, "fetch the model again, or quantize it without GPTQModel"):
        model = GPTQModel.load(
            str(job.model),
            config,
            trust_remote_code=job.trust_remote_code,
            dtype=other_packages.computing_dtype(original, device),
        )
    samples = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in sequences]
    use_every_token(model, sum(map(len, sequences)))
    model.layer_callback = report(original.config.get_text_config().num_hidden_layers)
    log = model.quantize(samples, batch_size=1)
    return model, min(int(entry["samples"]) for entry in log["gptq"])


def save(model: Any, directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """All tensors of GPTQModel's quantized `model`, and its `quantization_config`."""
    from safetensors.torch import load_file

    model.save(str(directory), max_shard_size=None)
    tensors: dict[str, Any] = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(file)
    quantization = read_json(directory / "config.json")["quantization_config"]
    quantization["meta"].pop("offload_to_disk_path", None)  # of this machine
    return tensors, quantization
