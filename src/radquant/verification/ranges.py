"""Fixed scales of inputs, keys and values beside what the original computes with a few texts.

A scale that is stored with a checkpoint was found on texts that are not here. What is largest in a
layer's input depends little on the text: a scale that is off by several times is damage.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.families.inspection import decoder_layers, linears
from radquant.packed.types.nvfp4 import AT_SIX, LARGEST_SCALE
from radquant.quantization.hidden_states import Hidden, first_inputs
from radquant.quantization.original_model import Original
from radquant.quantization.samples import Sample
from radquant.runtime.activations import Grid
from radquant.settings.precision import FP8, NVFP4, Activations
from radquant.tokenizer_files import read_tokenizer
from radquant.verification.same_model import fill_outside, run_layers
from radquant.verification.selftest import Check

# Any texts: reports like those that models are calibrated on.
TEXTS = (
    "FINDINGS: The cardiomediastinal silhouette is within normal limits. There is no focal "
    "consolidation, pleural effusion or pneumothorax. IMPRESSION: No acute process.",
    "COMPARISON: 12/03/2019. A left-sided PICC ends in the mid-SVC. Small bilateral effusions, "
    "with atelectasis at the bases (increased). Heart size is 14.5 cm.",
    "Indication: 71-year-old man, fever & cough. Findings: Patchy airspace opacity in the right "
    "lower lobe, new since the prior study, may represent pneumonia; the left lung is clear. The "
    "aorta is tortuous and calcified. Degenerative changes of the thoracic spine. Impression: "
    "Right lower lobe pneumonia. Follow-up radiographs in 6-8 weeks are recommended.",
    "PA and lateral views of the chest. Median sternotomy wires and a dual-lead pacemaker are "
    "unchanged. Mild cardiomegaly with pulmonary vascular congestion; no overt edema. Lungs are "
    "hyperinflated, as in COPD. A 9 mm nodule projects over the left upper lobe. Old rib "
    "fractures. Large hiatal hernia. Impression: 1. No acute disease. 2. Nodule: CT is advised.",
)
RANGE = "range of its inputs beside the original's, in powers of 2"
CACHE = "range of what is kept beside the original's, in powers of 2"
# Ranges from eight reports lie within 0.9 of these on SmolLM2.
MOST_APART = 2.2
# A larger range costs floating-point numbers nothing, as long as their exponent reaches.
MOST_LARGER = 12.0
LARGEST_FP8 = 448.0
PART_ON_A_SIDE = 0.7  # of a range that is not symmetric: between a half and all
SPREAD = 48  # tokens of the vocabulary that are read, too
CPU = torch.device("cpu")


@dataclass
class Largest:
    """The largest magnitudes of the original, by the names of its modules."""

    inputs: dict[str, Tensor] = field(default_factory=dict)  # of each channel, [in] float32
    kept: dict[tuple[int, str], float] = field(default_factory=dict)  # of keys ("k") and values


@torch.inference_mode()
def largest_of_original(source: Original, directory: Path, code: bool) -> Largest:
    """What is largest in each linear layer's input, and in keys and values, for `TEXTS`."""
    ids = texts_of(source, directory, code)
    found, handles = Largest(), []
    path = source.architecture.decoder_layers
    layers = decoder_layers(source.model, source.architecture)
    for number, layer in enumerate(layers):
        for name in linears(layer):
            hook = partial(see_input, found.inputs, f"{path}.{number}.{name}")
            handles.append(layer.get_submodule(name).register_forward_pre_hook(hook))
        for kind, module in kept_by(layer).items():
            seen = partial(see_output, found.kept, (number, kind))
            handles.append(module.register_forward_hook(seen))
    try:
        with tempfile.TemporaryDirectory() as folder:
            lengths = tuple(map(len, ids))
            width = source.config.get_text_config().hidden_size
            hidden = Hidden(Path(folder) / "hidden.f32", lengths, width)
            samples = [Sample(each) for each in ids]
            arguments = first_inputs(fill_outside(source), layers, samples, hidden, CPU)
            run_layers(source, hidden, arguments, CPU)
    finally:
        for handle in handles:
            handle.remove()
    return found


def texts_of(source: Original, directory: Path, code: bool) -> list[Tensor]:
    """The token ids of `TEXTS`, and tokens of the whole vocabulary, each [tokens] int64."""
    tokenizer = read_tokenizer(directory, code)
    model: Any = source.model
    last = model.get_input_embeddings().num_embeddings - 1
    texts = [torch.tensor(tokenizer(each)["input_ids"]).clamp(max=last) for each in TEXTS]
    return [*texts, torch.linspace(0, last, SPREAD).long()]


def kept_by(layer: nn.Module) -> Mapping[str, nn.Module]:
    """The modules whose outputs are a layer's keys, before their rotation, and values."""
    attention = getattr(layer, "self_attn", None)
    keys = getattr(attention, "k_norm", None) or getattr(attention, "k_proj", None)
    found = {"k": keys, "v": getattr(attention, "v_proj", None)}
    return {kind: each for kind, each in found.items() if isinstance(each, nn.Module)}


def see_input(found: dict[str, Tensor], name: str, module: nn.Module, args: Any) -> None:
    largest = args[0].abs().flatten(0, -2).amax(0).float()
    found[name] = torch.maximum(largest, found[name]) if name in found else largest


def see_output(
    found: dict[tuple[int, str], float],
    place: tuple[int, str],
    module: nn.Module,
    args: Any,
    output: Tensor,
) -> None:
    found[place] = max(float(output.abs().amax()), found.get(place, 0.0))


def largest_held(scale: float, activations: Activations) -> float:
    """The largest magnitude that a static range holds; about, where it is not symmetric."""
    if activations.type == FP8:
        return scale * LARGEST_FP8
    if activations.type == NVFP4:
        return AT_SIX * LARGEST_SCALE / scale
    if activations.symmetric:
        return scale * (2 ** (activations.bits - 1) - 1)
    return scale * (2**activations.bits - 1) * PART_ON_A_SIDE


def held_by_grids(ranges: Mapping[str, Grid]) -> dict[str, float]:
    """The largest magnitude that each static range holds, by the layer's name."""
    return {
        name: float(
            (grid.scale * torch.maximum(grid.zero - grid.low, grid.high - grid.zero)).amax()
        )
        for name, grid in ranges.items()
    }


def range_check(name: str, held: float, largest: Tensor, columns: Tensor | None) -> Check:
    """Whether a layer's static range is about as large as its inputs.

    held: the largest magnitude in it. largest: of each channel of the original's input, [in].
    columns: by what the checkpoint's columns are multiplied, and its inputs divided.
    """
    expected = float((largest if columns is None else largest / columns.abs()).amax())
    apart = math.log2(held / expected) if held > 0 and expected > 0 else math.inf
    return Check(f"{name}: {RANGE}", abs(apart), MOST_APART)


@dataclass
class Ranges:
    """What is fixed for run time in a checkpoint, beside what the original computes."""

    held: Mapping[str, float]  # the largest magnitude in a range of this program's own, by layer
    largest: Largest | None  # None: nothing is fixed, or nothing is known of it
    rows: dict[tuple[int, str], float] = field(default_factory=dict)

    def checks(
        self,
        name: str,
        scale: float | None,
        activations: Activations | None,
        columns: Tensor | None,
    ) -> Iterator[Check]:
        """Of a linear layer. scale: what is stored beside it. columns: as in `range_check`."""
        if self.largest is None or name not in self.largest.inputs:
            return
        held = self.held.get(name)
        if scale is not None and activations is not None:
            held = largest_held(scale, activations)
        if held is not None:
            yield range_check(name, held, self.largest.inputs[name], columns)

    def note_rows(self, number: int, rows: Mapping[str, Tensor]) -> None:
        """Keep by what keys and values of a decoder layer are multiplied."""
        for kind in "kv":
            if (found := rows.get(f"self_attn.{kind}_proj")) is not None:
                self.rows[number, kind] = float(found.abs().amax())

    def cache_checks(self, path: str, scales: Mapping[int, tuple[float, float]]) -> Iterator[Check]:
        """Whether fixed scales of an FP8 cache hold what is kept. path: of the decoder layers."""
        kept = {} if self.largest is None else self.largest.kept
        for layer, both in sorted(scales.items()):
            for kind, scale in zip("kv", both, strict=True):
                expected = kept.get((layer, kind), 0.0) * self.rows.get((layer, kind), 1.0)
                if expected > 0:
                    apart = math.log2(scale * LARGEST_FP8 / expected)
                    bound = MOST_APART if apart < 0 else MOST_LARGER
                    yield Check(f"{path}.{layer}.self_attn.{kind}_proj: {CACHE}", abs(apart), bound)
