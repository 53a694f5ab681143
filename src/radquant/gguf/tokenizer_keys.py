"""What a GGUF file says of a tokenizer: its tokens, what joins them, and how text is cut before.

The format's keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. llama.cpp has two
kinds that matter here. `gpt2` is byte-level BPE with a list of merges, and a *pre-tokenizer* that
llama.cpp knows by a name. `llama` is SentencePiece's BPE, whose merges stand in its tokens' scores.

A pre-tokenizer is recognised by its regular expressions, as tokenizer.json has them. llama.cpp's
converter recognises it by the numbers that it gives to a text, which change with every vocabulary.
"""

import json
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.tokenizer_files import read_tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
NEVER = -1000.0  # the score of a token that is not joined of others, as SentencePiece has it
SPACE = "▁"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
# llama.cpp's names (src/llama-vocab.cpp) of pre-tokenizers, each a list of steps, and whether a
# word that is a token is taken whole (ignore_merges).
DIGITS, GPT2 = "each digit", "GPT-2"
PRE_TOKENIZERS: dict[tuple[tuple[str, ...], bool], str] = {
    ((GPT2,), False): "gpt-2",
    ((DIGITS, GPT2), False): "smollm",
    ((rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}",), True): "llama-bpe",
    ((rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}",), False): "smaug-bpe",
    ((rf"{_ENDINGS}|{_WORDS}|\p{{N}}|{_REST}",), False): "qwen2",
    (
        (
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        True,
    ): "tekken",
}


def tokenizer_keys(original: Path, rows: int, trust_remote_code: bool = False) -> dict[str, Any]:
    """The `tokenizer.…` keys of a GGUF file with `rows` rows in its embedding, by name.

    Raises UserError for a tokenizer that llama.cpp would not cut texts as.
    """
    tokenizer = read_tokenizer(original, trust_remote_code)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(
            f"{original} has no tokenizer.json, which a GGUF file's tables are made of; make it "
            "with save_pretrained of a fast tokenizer"
        )
    stored = json.loads(backend.to_str())
    model = stored["model"]
    if model["type"] != "BPE":
        raise UserError(
            f"{original}/tokenizer.json is of type {model['type']}, which cannot be written as "
            "GGUF; those of type BPE can"
        )
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    tokens, types = token_table(tokenizer, stored, rows, original)
    keys: dict[str, Any] = {"tokenizer.ggml.token_type": types}
    if model.get("byte_fallback"):
        keys |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default"}
        keys["tokenizer.ggml.scores"] = scores(tokens, types, merges)
        # The converter writes spaces where SentencePiece's tokens of one's own have its mark.
        spaced = [
            token.replace(SPACE, " ") if kind == USER_DEFINED else token
            for token, kind in zip(tokens, types, strict=True)
        ]
        keys["tokenizer.ggml.tokens"] = spaced
    else:
        keys |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre_tokenizer(stored, original),
            "tokenizer.ggml.tokens": tokens,
            # A space within a part of a pair, as byte-level tokenizers write it.
            "tokenizer.ggml.merges": [
                " ".join(part.replace(" ", "Ġ") for part in pair) for pair in merges
            ],
        }
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        said = {"unk": "unknown", "pad": "padding"}.get(name, name)
        if number is not None:
            keys[f"tokenizer.ggml.{said}_token_id"] = number
    whole = tokenizer("a")["input_ids"]
    keys["tokenizer.ggml.add_bos_token"] = whole[0] == tokenizer.bos_token_id
    keys["tokenizer.ggml.add_eos_token"] = whole[-1] == tokenizer.eos_token_id
    first = backend.encode("a", add_special_tokens=False).tokens[0]
    keys["tokenizer.ggml.add_space_prefix"] = first.startswith((SPACE, "Ġ"))
    if isinstance(tokenizer.chat_template, str):
        keys["tokenizer.chat_template"] = tokenizer.chat_template
    return keys


def token_table(
    tokenizer: Any, stored: dict[str, Any], rows: int, original: Path
) -> tuple[list[str], list[int]]:
    """Each row's token and its type; rows that no token has are filled as llama.cpp's converter
    does."""
    by_number = {number: token for token, number in tokenizer.get_vocab().items()}
    if max(by_number) >= rows:
        raise UserError(
            f"the tokenizer of {original} has token {max(by_number)}, and the embedding {rows} "
            "rows; it is another model's, or the embedding was not resized"
        )
    added = {each["id"]: each["special"] for each in stored["added_tokens"]}
    pieces, unknown = bool(stored["model"].get("byte_fallback")), tokenizer.unk_token_id
    tokens, types = [], []
    for number in range(rows):
        token = by_number.get(number)
        if token is None:
            kind = UNUSED
        elif pieces and number == unknown:
            kind = UNKNOWN
        elif number in added:
            kind = CONTROL if added[number] else USER_DEFINED
        elif pieces and len(token) == 6 and token.startswith("<0x"):
            kind = BYTE
        else:
            kind = NORMAL
        tokens.append(f"[PAD{number}]" if token is None else token)
        types.append(kind)
    return tokens, types


def scores(tokens: list[str], types: list[int], merges: list[tuple[str, ...]]) -> list[float]:
    """Of each token: the later it is joined, the lower. llama.cpp joins the highest first, and
    Hugging Face the first pair of its list."""
    rank: dict[str, int] = {}
    for pair in merges:
        rank.setdefault("".join(pair), len(rank))
    return [
        0.0 if kind == BYTE else float(-rank[token]) if token in rank else NEVER
        for token, kind in zip(tokens, types, strict=True)
    ]


def pre_tokenizer(stored: dict[str, Any], original: Path) -> str:
    """llama.cpp's name of what cuts a text into words; raises UserError if it has none."""
    found = known_pre_tokenizer(stored)
    if found is None:
        raise UserError(
            f"llama.cpp has no name here for how {original}/tokenizer.json cuts texts into words "
            f"(known: {', '.join(PRE_TOKENIZERS.values())}), so it would read other tokens; use "
            "another format than gguf"
        )
    return found


def known_pre_tokenizer(stored: dict[str, Any]) -> str | None:
    """As `pre_tokenizer`; None if it has no name here. stored: the content of tokenizer.json."""
    steps = pre_steps(stored.get("pre_tokenizer"))
    if steps is None:
        return None
    return PRE_TOKENIZERS.get((steps, bool(stored["model"].get("ignore_merges"))))


def pre_steps(stored: dict[str, Any] | None) -> tuple[str, ...] | None:
    """What cuts a text, in order; None if a step is not known."""
    if stored is None:
        return None
    kind = stored["type"]
    if kind == "Sequence":
        steps = [pre_steps(each) for each in stored["pretokenizers"]]
        if any(each is None for each in steps):
            return None
        return tuple(step for each in steps if each is not None for step in each)
    if kind == "ByteLevel":
        return None if stored["add_prefix_space"] else (GPT2,) if stored["use_regex"] else ()
    if kind == "Digits" and stored["individual_digits"]:
        return (DIGITS,)
    if kind == "Split" and stored["behavior"] == "Isolated" and not stored["invert"]:
        pattern = stored["pattern"].get("Regex")
        return None if pattern is None else (pattern,)
    return None
