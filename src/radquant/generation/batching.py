"""Forming batches so that the number of shards changes no batch, and padding them."""

from collections.abc import Sequence

import torch

from radquant.errors import UserError
from radquant.prompts import Prompt


def plan_batches(prompts: Sequence[Prompt], batch_size: int) -> list[list[int]]:
    """Cut the prompts, sorted by length and then id, into batches of indices into `prompts`.

    Length is that of everything the model reads (prompt and answer), so little is padded.
    """
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; it must be at least 1")

    def key(index: int) -> tuple[int, str]:
        prompt = prompts[index]
        return len(prompt.ids) + len(prompt.answer_ids), prompt.id

    order = sorted(range(len(prompts)), key=key)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def batches_of_shard(batches: Sequence[list[int]], shard: int, shards: int) -> list[list[int]]:
    """Return every `shards`-th batch for `shard`, which counts from 1; there may be none."""
    if shards < 1 or not 1 <= shard <= shards:
        raise UserError(f"there is no shard {shard} of {shards}; shards count from 1")
    return list(batches[shard - 1 :: shards])


def shared_prefix(prompts: Sequence[Prompt]) -> list[int]:
    """Return the tokens with which all prompts begin, short of any prompt's last token.

    These are the system turn, the few-shot examples and the head of the instruction. They end
    before the first token of an image, which stands for something else in each prompt.
    """
    if len(prompts) < 2:
        return []
    shortest = min((prompt.ids for prompt in prompts), key=len)
    length = min([len(shortest) - 1, *(p.types.index(1) for p in prompts if 1 in p.types)])
    for prompt in prompts:
        while prompt.ids[:length] != shortest[:length]:
            length -= 1
    return shortest[:length]


def pad_left(
    sequences: Sequence[Sequence[int]], prefix: int, pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (ids, mask), int64 [B, T], of sequences that all begin with `prefix` equal tokens.

    A row is [prefix][padding][rest]: rows end together, and a cache of the prefix fits them all.
    The mask is 0 at the padding.
    """
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        rest = torch.tensor(sequence[prefix:], dtype=torch.long)
        ids[row, :prefix] = torch.tensor(sequence[:prefix], dtype=torch.long)
        ids[row, longest - len(rest) :] = rest
        mask[row, :prefix] = 1
        mask[row, longest - len(rest) :] = 1
    return ids.to(device), mask.to(device)
