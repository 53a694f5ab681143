"""Whether a GGUF file's tokenizer is the original's.

The engines here read and write with the original's tokenizer files, and llama.cpp with the file's
tables. A token that differs would stand for another row of the embedding. These are compared: each
token, the order of merges (or the scores that stand for it), and the first and last tokens. So is
whether a beginning is added. The format's keys:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.gguf.reading import GGUFModel
from radquant.gguf.tokenizer_keys import PRE_TOKENIZERS, known_pre_tokenizer
from radquant.model_files import read_config
from radquant.tokenizer_files import OWN_PADDING, read_tokenizer

# Types of tokens: one that is joined of others; one of control; a row that no text uses.
NORMAL, CONTROL, UNUSED = 1, 3, 5
SPACE = "▁"
BYTE_LEVEL, PIECES = "gpt2", "llama"  # kinds of tokenizers
# Pre-tokenizers of llama.cpp (src/llama-vocab.cpp) with which it adds a beginning by default.
ADD_BEGINNING = (
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    *("jina-v5-nano", "tekken", "chameleon"),
)

# Names of pre-tokenizers with which llama.cpp cuts as with another (`llm_tokenizer_bpe`).
ALIASES = {
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral"), "llama-bpe"),
    **dict.fromkeys(("midm-2.0", "lfm2", "jina-v5-nano"), "llama-bpe"),
    **dict.fromkeys(("stablelm2", "deepseek-r1-qwen"), "qwen2"),
    **dict.fromkeys(("phi-2", "mpt", "olmo", "jais"), "gpt-2"),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone"), "smollm"),
    **dict.fromkeys(("dbrx", "chatglm-bpe"), "smaug-bpe"),
}
STEPS = {name: steps for (steps, _), name in PRE_TOKENIZERS.items()}
UNKNOWN_CUTS = (
    "Whether llama.cpp cuts a text into the original's words (tokenizer.ggml.pre: {said}) is not "
    "known; prompts are given to it as tokens."
)
OTHER_CUTS = (
    "It says tokenizer.ggml.pre: {said}, and the original's tokenizer cuts texts as {wanted} does. "
    "Prompts are given as the original's tokens; llama.cpp given texts would read other ones."
)


def check_vocabulary(
    model: GGUFModel, original: Path, trust_remote_code: bool = False
) -> list[str]:
    """Raise UserError unless the file's tokenizer is that of the original's directory.

    The message says how many tokens differ, and which is the first. None of them is a report's.
    Returns what differs and changes no token of a prompt: sentences for the record.
    """
    tokenizer = read_tokenizer(original, trust_remote_code)
    kind = model.keys.get("tokenizer.ggml.model")
    if kind not in (BYTE_LEVEL, PIECES):
        raise UserError(
            f"{model.path} has a tokenizer of the kind {kind!r}, which is not known here; known "
            f"are {BYTE_LEVEL} and {PIECES}"
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(
            f"{original} has no tokenizer.json, which a GGUF file's vocabulary is compared with; "
            "make it with save_pretrained of a fast tokenizer"
        )
    tokens = [token.decode("utf-8", "backslashreplace") for token in texts(model, "tokens")]
    notes = check_tokens(model, tokens, tokenizer, original)
    whole = json.loads(backend.to_str())
    stored = whole["model"]
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in stored["merges"]]
    if kind == BYTE_LEVEL:
        check_merges(model, merges)
        notes += check_pre_tokenizer(model, whole)
    else:
        check_scores(model, tokens, merges)
    check_ends(model, tokenizer, original)
    return notes


def texts(model: GGUFModel, name: str) -> list[bytes]:
    found = model.keys.get(f"tokenizer.ggml.{name}")
    if not isinstance(found, list) or not all(isinstance(each, bytes) for each in found):
        raise UserError(f"{model.path} has no list tokenizer.ggml.{name}; fetch a whole file")
    return found


def check_tokens(model: GGUFModel, tokens: list[str], tokenizer: Any, original: Path) -> list[str]:
    """Raise UserError unless each number stands for the same token.

    A padding token of the file's own, where the original has none, is told instead: no prompt holds
    it.
    """
    own = {number: token for token, number in tokenizer.get_vocab().items()}
    types = model.keys.get("tokenizer.ggml.token_type") or []
    config = read_config(original)
    # Images take its place before the language model sees it; a text's file may end before it.
    image = config.get("image_token_index", config.get("image_token_id"))
    padding = model.keys.get("tokenizer.ggml.padding_token_id")
    notes, unlike, count = [], [], max(len(tokens), max(own) + 1)
    for number in range(count):
        token = tokens[number] if number < len(tokens) else None
        if number not in own:
            filled = number < len(types) and types[number] == UNUSED
            if filled or is_filler(token):
                continue
            if number == padding and types[number : number + 1] == [CONTROL]:
                notes.append(OWN_PADDING.format(token=repr(token), number=number))
                continue
        elif token is None:
            if number == image:
                continue
        elif token == own[number] or plain_spaces(token) == plain_spaces(own[number]):
            continue
        unlike.append(number)
    if unlike:
        first = unlike[0]
        stored = repr(tokens[first]) if first < len(tokens) else "none"
        wanted = repr(own[first]) if first in own else "none"
        raise UserError(
            f"{len(unlike)} of {count} tokens of {model.path} differ from the tokenizer of "
            f"{original} (token {first}: {stored:.60} there, {wanted:.60} here); take a file of "
            "the same model"
        )
    return notes


def is_filler(token: str | None) -> bool:
    """Whether a converter made up a token for a row that no token has."""
    return token is not None and token.startswith(("[PAD", "<unused", "<pad", "[unused"))


def plain_spaces(token: str) -> str:
    """The converter writes some of the marks that stand for spaces as spaces."""
    return token.replace(SPACE, " ")


def check_merges(model: GGUFModel, merges: list[tuple[str, ...]]) -> None:
    """Raise UserError unless the file merges the same pairs in the same order."""
    found = [each.decode("utf-8", "backslashreplace") for each in texts(model, "merges")]
    # The converter writes a space inside a part of a pair as byte-level tokenizers do.
    wanted = [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in merges]
    unlike = sum(one != other for one, other in zip(found, wanted, strict=False))
    unlike += abs(len(found) - len(wanted))
    if unlike:
        raise UserError(
            f"{unlike} of the {len(found)} merges of {model.path} differ from those of the "
            "original's tokenizer; take a file of the same model"
        )


def check_pre_tokenizer(model: GGUFModel, stored: dict[str, Any]) -> list[str]:
    """A sentence where llama.cpp would cut texts into other words before it joins tokens, or may.

    stored: the original's tokenizer.json. Prompts go to llama.cpp as tokens here, so that nothing
    that is evaluated changes. But whoever gives it texts has it read other tokens. The original's
    tokenizer need not be the right one: transformers loses this key of a GGUF file that it reads.
    """
    said = str(model.keys.get("tokenizer.ggml.pre") or "default")
    found, wanted = ALIASES.get(said, said), known_pre_tokenizer(stored)
    if found == wanted:
        return []
    if wanted is None or found not in STEPS or STEPS[found] == STEPS[wanted]:
        return [UNKNOWN_CUTS.format(said=said)]
    return [OTHER_CUTS.format(said=said, wanted=wanted)]


def check_scores(model: GGUFModel, tokens: list[str], merges: list[tuple[str, ...]]) -> None:
    """Raise UserError unless the tokens' scores put the merges in the original's order.

    llama.cpp joins the pair whose token has the highest score, Hugging Face the first in its list.
    """
    scores = model.keys.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise UserError(
            f"{model.path} has not one number of tokenizer.ggml.scores for each of its "
            f"{len(tokens)} tokens; fetch a whole file"
        )
    numbers = {plain_spaces(token): number for number, token in enumerate(tokens)}
    joined = [numbers.get(plain_spaces("".join(pair))) for pair in merges]
    types = model.keys.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    order = [scores[each] for each in joined if each is not None and types[each] == NORMAL]
    unlike = sum(later > earlier for earlier, later in pairwise(order)) + joined.count(None)
    if unlike:
        raise UserError(
            f"{unlike} of the {len(tokens)} tokens of {model.path} have scores that join them in "
            "another order than the original's; take a file of the same model"
        )


def check_ends(model: GGUFModel, tokenizer: Any, original: Path) -> None:
    """Raise UserError unless texts begin and end as with the original's tokenizer."""
    begin, end = (model.keys.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos"))
    if begin is not None and tokenizer.bos_token_id not in (None, begin):
        raise UserError(
            f"{model.path} says bos_token_id {begin}, and the original's tokenizer "
            f"{tokenizer.bos_token_id}; take a file of the same model"
        )
    ends = end_tokens(tokenizer, original)
    if end is not None and ends and end not in ends:
        raise UserError(
            f"{model.path} says eos_token_id {end}, and the original ends with "
            f"{', '.join(map(str, sorted(ends)))}; take a file of the same model"
        )
    added = adds_beginning(model)
    own = tokenizer.bos_token_id in tokenizer("a")["input_ids"][:1]
    if added != own:
        adds = ("adds none", "adds a beginning (BOS) to a text")
        raise UserError(
            f"{model.path} {adds[added]}, and the original's tokenizer {adds[own]}; set "
            f"tokenizer.ggml.add_bos_token to {str(own).lower()} with gguf_set_metadata, or take "
            "another file"
        )


def adds_beginning(model: GGUFModel) -> bool:
    """Whether llama.cpp puts a beginning before a text that it is given as text."""
    usual = (
        model.keys.get("tokenizer.ggml.model") == PIECES
        or model.keys.get("tokenizer.ggml.pre") in ADD_BEGINNING
    )
    return bool(model.keys.get("tokenizer.ggml.add_bos_token", usual))


def end_tokens(tokenizer: Any, original: Path) -> set[int]:
    """The tokens that end an answer by any of the original's files."""
    config = read_config(original)
    path = original / "generation_config.json"
    writing = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    inner = config.get("text_config")
    ends = {tokenizer.eos_token_id}
    for each in (writing, config, inner if isinstance(inner, dict) else {}):
        said = each.get("eos_token_id")
        ends |= set(said) if isinstance(said, list) else {said}
    return {end for end in ends if isinstance(end, int)}
