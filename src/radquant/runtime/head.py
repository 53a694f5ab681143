"""The head, the table of the vocabulary: how it is multiplied by, and rounded to 8 bits.

Where the embedding is the same table, it is rounded with it.
"""

from typing import Any

import torch
from torch.nn.functional import pad

from radquant.errors import UserError
from radquant.packed import grid
from radquant.packed.linear import PackedLinear
from radquant.packed.packing import WORD, pack_columns
from radquant.settings.precision import LMHead
from radquant.settings.recipe import Recipe

SLICE = 16384  # tokens that are rounded together: large vocabularies take gigabytes in float32


def multiply_rows(model: Any) -> None:
    """Let the model's head multiply all rows of a batch at once.

    Who asks for the scores of the last positions alone hands the head a slice [B, T, width] with
    gaps. torch.matmul does not fold such a slice into rows. It multiplies each sequence by a copy
    of the table of its own, which is 1.3 GB a sequence for Gemma 3's vocabulary.
    """
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))


@torch.inference_mode()
def round_head(model: Any, settings: LMHead) -> PackedLinear:
    """Round the weights of the model's head to nearest, in place; they are also returned packed.

    The model then holds the rounded values in its own dtype; the packed ones are on the CPU, where
    the lean engine reads them. Scales are in float16, one for `group_size` channels of a token,
    with a zero point. The packed vocabulary is filled up to whole words with tokens of zeros.
    Raises UserError for a group size that does not fit.
    """
    weight = model.get_output_embeddings().weight
    vocabulary, width = weight.shape
    if width % settings.group_size:
        raise UserError(
            f"lm_head: group_size {settings.group_size} does not divide the model's {width} "
            "channels; choose one that does, or leave lm_head out"
        )
    # The recipe is not checked like a checkpoint's, as a head takes more sizes of groups.
    recipe = Recipe.model_construct(
        method="rtn", bits=settings.bits, group_size=settings.group_size
    )
    per_word = WORD // settings.bits
    filled = vocabulary + -vocabulary % per_word
    layer = PackedLinear(width, filled, settings.bits, settings.group_size)
    for begin in range(0, vocabulary, SLICE):
        rows = weight[begin : begin + SLICE]
        whole = pad(rows, (0, 0, 0, -len(rows) % per_word)).float()
        try:
            rounded = grid.quantize(whole, recipe)
            grid.require_fine_enough(whole, rounded.dequantize(), recipe)
        except UserError as error:
            raise UserError(f"lm_head: {error}; or leave lm_head out") from None
        end = begin + len(rounded.integers)
        words = slice(begin // per_word, end // per_word)
        layer.qweight[:, words] = pack_columns(rounded.integers.T, settings.bits).cpu()
        layer.qzeros[:, words] = pack_columns(rounded.zeros.T, settings.bits).cpu()
        layer.scales[:, begin:end] = rounded.scales.T.cpu()
        rows.copy_(rounded.dequantize()[: len(rows)])
    return layer
