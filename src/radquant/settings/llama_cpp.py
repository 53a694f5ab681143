"""A checkpoint that llama.cpp's own quantizer makes of the original: `tool: llama.cpp`.

It has no recipe of ours: its types are mixtures that llama.cpp chooses layer by layer.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from radquant.settings.precision import LLAMA_CPP
from radquant.settings.section import OneOf, Section, wrong

GGUF_FILE = "model.gguf"
# `enum llama_ftype` of llama.h (build b9371), without LLAMA_FTYPE_MOSTLY_, in order of bits.
FILE_TYPES = {
    **{"q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13},
    **{"iq4_xs": 30, "iq4_nl": 25, "q4_0": 2, "q4_1": 3, "q4_k_s": 14, "q4_k_m": 15},
    **{"q5_0": 8, "q5_1": 9, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "q8_0": 7},
}
# As llama.cpp's own program calls them, too.
SHORT = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}
KEYS = ("tool", "type", "importance")


class ByLlamaCpp(Section):
    """What llama.cpp's own quantizer makes of the original, as a GGUF file."""

    tool: Annotated[str, OneOf((LLAMA_CPP,))] = Field(
        description="llama.cpp's own quantizer (docs/tools.md)"
    )
    type: Annotated[str, OneOf((*FILE_TYPES, *SHORT))] = Field(
        description="What llama.cpp calls the file's type; q3_k, q4_k and q5_k are its mixtures _m"
    )
    importance: bool = Field(
        False,
        description="Weigh rounding errors by an importance matrix: the mean squares of each "
        "layer's inputs on the calibration texts",
    )

    @model_validator(mode="before")
    @classmethod
    def without_recipe(cls, values: Any) -> Any:
        """What a recipe says, llama.cpp decides itself."""
        from radquant.settings.checkpoint import Checkpoint

        if isinstance(values, Mapping):
            for key in values:
                if key in Checkpoint.model_fields and key not in KEYS:
                    raise wrong(
                        f": {key} does not go with tool llama.cpp, whose type says all but "
                        f"importance; remove {key}"
                    )
        return values

    @property
    def file_type(self) -> int:
        """The number in llama.h of the file's type."""
        return FILE_TYPES[SHORT.get(self.type, self.type)]

    @property
    def weight_files(self) -> tuple[str, ...]:
        return (GGUF_FILE,)


def is_by_llama_cpp(values: Any) -> bool:
    """Whether a checkpoint of a configuration, as values or as a section, is llama.cpp's."""
    if isinstance(values, Section):
        return isinstance(values, ByLlamaCpp)
    return isinstance(values, Mapping) and values.get("tool") == LLAMA_CPP
