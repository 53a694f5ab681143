"""What writing and scoring by this package's own decoder share."""

from collections.abc import Sequence

import torch

from radquant.failures import is_out_of_memory
from radquant.generation.lean_decoder import LeanDecoder
from radquant.generation.memory import NotEnoughMemory
from radquant.generation.prefix import check_window
from radquant.runtime.runtime_file import StoredPrefix


def begin(
    lean: LeanDecoder, shared: Sequence[int], longest: int, stored: StoredPrefix | None = None
) -> int:
    """Let all sequences begin with the stored prefix and the tokens that they share; their number.

    shared: as `batching.shared_prefix` finds it, the stored prefix's own tokens included. longest:
    of all sequences in tokens, new ones included. Raises UserError as `prefix.begin` does.
    """
    decoder = lean.decoder
    decoder.clear()
    lean.reach(longest)
    known = 0
    if stored is not None:
        check_window(lean.config, longest)
        known = len(stored.ids)
        keys, values = (
            [states[0].float().contiguous() for states in kind]
            for kind in (stored.keys, stored.values)
        )
        decoder.load(0, keys, values)
    rest = list(shared[known:])
    if rest:
        decoder.run(int64(rest), int64([0] * len(rest)), int64([]))
    if stored is not None or rest:
        decoder.share(0)
    length: int = decoder.shared_length()
    return length


def stored_tokens(stored: StoredPrefix | None) -> int:
    return 0 if stored is None else len(stored.ids)


def int64(values: Sequence[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.long)


def halved(size: int, error: Exception) -> int:
    """Half of the rows at once if `error` says that memory ran out; else it is raised again."""
    if not is_out_of_memory(error):
        raise error
    if size == 1:
        raise NotEnoughMemory(
            "there is not enough memory for one report; use a smaller model or a machine with more"
        ) from None
    return size // 2
