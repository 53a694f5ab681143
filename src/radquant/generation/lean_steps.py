"""What writing and scoring by this package's own decoder share."""

from collections.abc import Sequence

import torch

from radquant.errors import UserError
from radquant.failures import is_out_of_memory
from radquant.generation.lean_rows import LeanDecoder, Read
from radquant.generation.memory import NotEnoughMemory
from radquant.generation.prefix import check_window
from radquant.prompts import Prompt
from radquant.runtime.runtime_file import StoredPrefix
from radquant.vision.features import Features


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
        decoder.share(0)
    rest = list(shared[known:])
    if rest:
        lean.run({0: Read(rest)}, [])
        decoder.share(0)
    length: int = decoder.shared_length()
    return length


def stored_tokens(stored: StoredPrefix | None) -> int:
    return 0 if stored is None else len(stored.ids)


def read_of(
    lean: LeanDecoder, prompt: Prompt, features: Features | None, more: Sequence[int] = ()
) -> Read:
    """What a row reads of a prompt, behind what all begin with.

    features: of the prompt's images. more: tokens behind the prompt. Raises UserError if there are
    not as many vectors as tokens that stand for them.
    """
    own = prompt.ids[lean.decoder.shared_length() :]
    ids = [*own, *more]
    if not prompt.images:
        return Read(ids)
    assert features is not None
    vectors = torch.cat([features.of(image).embeddings for image in prompt.images])
    # The tokens are counted by their number, as the processor's types may include marks around an
    # image.
    types = [int(token == lean.image_token) for token in own]
    if len(vectors) != sum(types):
        raise UserError(
            f"report {prompt.id}: its prompt has {sum(types)} tokens for images, and their "
            f"features have {len(vectors)}; encode the images with this model's own processor"
        )
    return Read(ids, vectors, types)


def halved(size: int, error: Exception) -> int:
    """Half of the rows at once if `error` says that memory ran out; else it is raised again."""
    if not is_out_of_memory(error):
        raise error
    if size == 1:
        raise NotEnoughMemory(
            "there is not enough memory for one report; use a smaller model or a machine with more"
        ) from None
    return size // 2
