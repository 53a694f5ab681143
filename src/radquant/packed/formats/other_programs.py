"""What formats say of transformers and vLLM: in which words, and tried with which releases."""

from radquant.packed.formats.kind import Settings
from radquant.settings.precision import STATIC, TENSOR, TOKEN
from radquant.settings.recipe import WHOLE_ROW

VLLM, TRANSFORMERS, GPTQMODEL = "vLLM 0.32", "transformers 5.23", "gptqmodel 7.2"
VLLM_CPU_BITS = (4,)
VLLM_BITS = (4, 8)  # that most of its kernels have


def vllm_lacks_bits(settings: Settings, able: tuple[int, ...], on_cpu: bool) -> str | None:
    """Words that follow "vLLM cannot …". able: the bits that vLLM reads in this format."""
    for bits in settings.all_bits:
        if bits not in able:
            can = " and ".join(map(str, able))
            return f"read {bits} bits in format {settings.format}; it can {can}"
        # vLLM's kernels for CPUs also take 8-bit weights, if inputs have 8 bits, too.
        if on_cpu and bits not in VLLM_CPU_BITS and settings.activations is None:
            return f"multiply by {bits}-bit weights on a CPU; use 4 bits"
    return None


def vllm_lacks_rounding(settings: Settings) -> str | None:
    """Words that follow "vLLM cannot …", of the inputs that a checkpoint says to be rounded.

    W8A8 it computes in INT8 and FP8. Other weights it multiplies with inputs as they are, without a
    word (4 bits with 8), or does so on most GPUs (NVFP4).
    """
    inputs = settings.activations
    if inputs is None:
        return None
    by_token = inputs.granularity == TOKEN and inputs.keep_from is None
    static = inputs.granularity == TENSOR and inputs.range == STATIC
    whole = settings.group_size == WHOLE_ROW and settings.block is None and settings.bits == 8
    if whole and inputs.type == settings.type and inputs.bits == 8 and (by_token or static):
        return None
    return (
        f"round inputs to {inputs.bits} bits of type {inputs.type} by {inputs.granularity} before "
        f"weights of {settings.bits} bits of type {settings.type}; use engine transformers"
    )


def vllm_lacks_order(settings: Settings) -> str | None:
    """Words that follow "vLLM cannot …"."""
    if settings.in_order_of_activation:
        return "read groups in order of activation; leave desc_act out"
    return None


def vllm_hindrance(settings: Settings) -> str | None:
    """Why vLLM refuses weights in any format: the card's words, which follow "vLLM 0.32, …"."""
    if settings.in_order_of_activation:
        return "which no longer takes groups in order of activation"
    lacking = [bits for bits in settings.all_bits if bits not in VLLM_BITS]
    return f"most of whose kernels have no {lacking[0]} bits" if lacking else None


def vllm_text(
    settings: Settings, dtype: str, hindrance: str | None, eight_bits_on: str = "on a GPU"
) -> str:
    """The card's paragraph on vLLM. eight_bits_on: where vLLM multiplies by 8-bit weights."""
    if hindrance:
        return f"vLLM: not with {VLLM}, {hindrance}."
    caution = f" {eight_bits_on}" if 8 in settings.all_bits else ""
    example = code("from vllm import LLM", "", f'model = LLM("DIRECTORY", dtype="{dtype}")')
    return f"vLLM{caution}:{example}"


def transformers_text(beside: str, dtype: str) -> str:
    """The card's paragraph on transformers. beside: the packages that it needs, and an end."""
    example = code(
        "from transformers import AutoModelForCausalLM",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("DIRECTORY", dtype="{dtype}")',
    )
    return f"transformers, beside {beside}{example}"


def code(*lines: str) -> str:
    return "\n\n```python\n" + "\n".join(lines) + "\n```"
