"""Where the models run."""

from typing import Annotated

from pydantic import Field

from radquant import registry
from radquant.settings.engines import AUTO
from radquant.settings.section import OneOf, Section


class Compute(Section):
    """Where the models run."""

    device: Annotated[str, OneOf((AUTO, "cpu", "cuda"))] = Field(
        AUTO, description="auto takes a GPU where there is one"
    )
    engine: Annotated[str, OneOf(registry.ENGINES, before=(AUTO,))] = Field(
        AUTO,
        description="What computes. lean is this package's own decoder for CPUs, and transformers "
        "runs everything. auto is lean where it can run the model, and transformers "
        "elsewhere. vllm writes the reports in an environment of its own and needs a "
        "device that is not auto (docs/serving.md)",
    )
    dtype: Annotated[str, OneOf((AUTO, "float32", "bfloat16", "float16"))] = Field(
        AUTO,
        description="Number format of the computation; auto is float32 on a CPU, with vllm "
        "bfloat16",
    )
    threads: int = Field(
        1,
        ge=1,
        le=4096,
        description="CPU threads of each model job; independent of --cores, which runs jobs side "
        "by side",
    )
