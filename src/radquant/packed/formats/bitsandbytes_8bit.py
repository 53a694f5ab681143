"""bitsandbytes' LLM.int8() (Dettmers et al. 2022): read, never written.

Tensors of a linear layer (bitsandbytes, `nn.Linear8bitLt`):

    weight         int8    [out, in]
    SCB            float32 [out]: the largest magnitude of each row
    weight_format  uint8   []: 0, rows as they are

A weight is integer · SCB / 127. Inputs are rounded to 8 bits by token, but for channels in which a
value reaches `llm_int8_threshold`. Here only such values themselves stay as they are: what else is
in a batch changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.packed.formats import bitsandbytes_4bit
from radquant.packed.formats.kind import Settings, Stored, refuse_unapplied
from radquant.settings.precision import LARGEST_KEPT, Activations
from radquant.settings.recipe import WHOLE_ROW

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import StoredValues

NAME = "bitsandbytes-8bit"
METHOD = bitsandbytes_4bit.METHOD
BITS: tuple[int, ...] = (8,)
VALUES = True
MARKS: tuple[str, ...] = ("SCB",)
SUFFIXES: tuple[str, ...] = ("SCB", "weight", "weight_format")
# transformers writes the keys of 4 bits for 8 bits, too.
APPLIED = bitsandbytes_4bit.APPLIED | {"load_in_8bit", "_load_in_8bit"}
USUAL_THRESHOLD = 6.0
ONE_127TH = 0.007874015718698502  # a float32 that is not quite it; bitsandbytes multiplies by this


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") == METHOD and bitsandbytes_4bit.of_8_bits(config)


def read_config(config: Mapping[str, Any]) -> Settings:
    refuse_unapplied(config, APPLIED)
    said = config.get("llm_int8_threshold", USUAL_THRESHOLD)
    if type(said) not in (int, float) or not 0 <= said <= LARGEST_KEPT:
        raise UserError(f"quantization_config says llm_int8_threshold: {said!r}, which is none")
    return Settings(
        NAME,
        8,
        WHOLE_ROW,
        symmetric=True,
        left_out=bitsandbytes_4bit.skipped(config),
        activations=Activations(bits=8, keep_from=float(said) or None),
    )


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    return {
        "weight": Stored((outputs, inputs), dtypes=("int8",)),
        "SCB": Stored((outputs,), also=((outputs, 1), (1, outputs)), floating=True),
        "weight_format": Stored((), also=((1,),), optional=True, dtypes=("uint8",)),
    }


def unpack(tensors: dict[str, Tensor], settings: Settings) -> StoredValues:
    from radquant.packed.grid import StoredValues

    order = tensors.get("weight_format")
    if order is not None and int(order) != 0:
        raise UserError(
            "its weight is stored in the order of a GPU's tiles (weight_format is not 0); save it "
            "again with a newer bitsandbytes"
        )
    rows = tensors["SCB"].float().reshape(-1, 1)
    return StoredValues(tensors["weight"].float() * rows * ONE_127TH)


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    return "multiply by bitsandbytes' weights on a CPU" if on_cpu else None


def loading(settings: Settings, dtype: str) -> list[str]:
    return []
