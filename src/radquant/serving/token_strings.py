"""Tokens as texts and, one by one, as clients are told them: a token may be part of a character."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from radquant.failures import withheld_panics

BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how SentencePiece spells a token for a byte


def bytes_of(tokenizer: Any, token: int, before: int | None) -> bytes:
    """What a token spells in UTF-8, behind the token `before`, or at the beginning of a text."""
    if token in special_tokens(tokenizer):
        return str(tokenizer.convert_ids_to_tokens(token)).encode()
    name = tokenizer.convert_ids_to_tokens(token)
    if name is None:  # beyond the tokenizer's vocabulary
        return b""
    if spells_bytes(tokenizer):
        table = byte_letters()
        if all(letter in table for letter in name):
            return bytes(table[letter] for letter in name)
        return str(name).encode()  # an added token, which is written as it is
    if found := BYTE.fullmatch(name):
        return bytes([int(found[1], 16)])
    with withheld_panics():
        if before is None:
            return str(tokenizer.decode([token])).encode()
        first, both = (str(tokenizer.decode(ids)) for ids in ([before], [before, token]))
    return both.removeprefix(first).encode()


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens as it is, without special ones."""
    with withheld_panics():
        return str(
            tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def text_of(spelled: bytes) -> str:
    """The token as a text; as OpenAI writes it where it is none."""
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


@lru_cache(maxsize=4)
def special_tokens(tokenizer: Any) -> frozenset[int]:
    """The tokens that a decoded text does not show."""
    return frozenset(tokenizer.all_special_ids)


@lru_cache(maxsize=4)
def spells_bytes(tokenizer: Any) -> bool:
    """Whether letters of the vocabulary stand for bytes, as in GPT-2's."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = None if backend is None else backend.decoder
    return decoder is not None and b'"ByteLevel"' in decoder.__getstate__()


@lru_cache(maxsize=1)
def byte_letters() -> dict[str, int]:
    """The byte that each letter stands for: itself where it can be seen, else one from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    letters = {chr(byte): byte for byte in seen}
    return letters | {chr(256 + place): byte for place, byte in enumerate(hidden)}
