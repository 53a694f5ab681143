"""Whether a checkpoint that was given is one of the original: its architecture and its tokenizer.

Configurations are compared as transformers completes them, so that what one file leaves out and
another writes down is the same. Of two tokenizers the vocabularies are compared, and how they cut
texts: files of equal tokenizers differ between releases.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from radquant.checkpoints.fitting import open_config
from radquant.errors import UserError
from radquant.model_files import CONFIG
from radquant.tokenizer_files import OWN_PADDING, PROBE, read_tokenizer

OTHER_TEMPLATE = "Its chat template is not the original's, which every precision is given here."
# Keys of a configuration that change no output of the weights, or are taken from the original in
# any case.
NOT_COMPARED = frozenset(
    (
        *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"),
        *("quantization_config", "use_cache", "initializer_range", "pretraining_tp"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"),
        *("attention_dropout", "hidden_dropout", "id2label", "label2id", "problem_type"),
        *("max_position_embeddings", "tie_word_embeddings", "return_dict", "output_attentions"),
        *("output_hidden_states", "chunk_size_feed_forward", "is_encoder_decoder"),
    )
)
# These are told first, because most people know their model by them.
FIRST = ("num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size")
AGAIN = "name the original that it was made from, or another checkpoint"
# So many tokens are cut again by both tokenizers. That is enough to see another set of rules.
PROBED = 20_000
READING = (
    PROBE,
    "COMPARISON: 12/03/2019. Heart size is 14.5 cm; no PNEUMOTHORAX, nor free air (r/o CHF).",
    "1. Stable cardiomegaly.\n2. Left-sided PICC tip in the mid-SVC,  unchanged.\tNo café-au-lait…",
)


def check_architecture(original: Path, given: Path, code: bool = False) -> None:
    """Raise UserError unless the checkpoint in `given` is one of the model in `original`.

    Both are Hugging Face directories. code: whether their own program code may run.
    """
    ours, theirs = open_config(original, code), open_config(given, code)
    if ours.model_type != theirs.model_type:
        raise UserError(
            f"{given / CONFIG} is of a {theirs.model_type} model, and the original is "
            f"{ours.model_type}; {AGAIN}"
        )
    known = type(ours)().to_dict()
    found = dict(differences(ours.to_dict(), theirs.to_dict(), known))
    if found:
        places = [*FIRST, *(f"text_config.{key}" for key in FIRST)]
        place = min(found, key=lambda each: (places.index(each) if each in places else 99, each))
        mine, other = found[place]
        raise UserError(
            f"{given / CONFIG} says {place}: {other}, and the original's {mine}, so it is a "
            f"checkpoint of another model; {AGAIN}"
        )


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], known: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(place, (ours, theirs)) of the values that differ. known: the keys that a class reads."""
    for key in sorted(known.keys() - NOT_COMPARED):
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, dict) and isinstance(other, dict):
            yield from differences(mine, other, {**mine, **other}, f"{place}{key}.")
        elif mine != other:
            yield f"{place}{key}", (mine, other)


def check_tokenizers(original: Path, given: Path, code: bool = False) -> list[str]:
    """Raise UserError unless both directories' tokenizers cut texts into the same tokens.

    Returns what differs and changes no token: sentences for the record.
    """
    ours, theirs = read_tokenizer(original, code), read_tokenizer(given, code)
    mine, other = ours.get_vocab(), dict(theirs.get_vocab())
    notes = []
    if theirs.pad_token not in mine and theirs.pad_token_id not in mine.values():
        number = other.pop(theirs.pad_token, None)
        notes = [OWN_PADDING.format(token=repr(theirs.pad_token), number=number)]
    check_vocabulary(mine, other, given)
    texts = [*READING, *probes(ours)]
    pieces = (each(texts, add_special_tokens=False)["input_ids"] for each in (ours, theirs))
    cut = sum(one != two for one, two in zip(*pieces, strict=True))
    if cut:
        raise UserError(
            f"{given} has the original's vocabulary, and its tokenizer cuts {cut:,} of "
            f"{len(texts):,} short texts otherwise; {AGAIN}"
        )
    return notes + ([OTHER_TEMPLATE] if ours.chat_template != theirs.chat_template else [])


def check_vocabulary(ours: Mapping[str, int], theirs: Mapping[str, int], given: Path) -> None:
    """Raise UserError unless two vocabularies, {token: number}, are the same."""
    differing = dict(ours.items() ^ theirs.items())
    if differing:
        first = min(differing, key=lambda token: (differing[token], token))
        raise UserError(
            f"the tokenizer of {given} differs from the original's in {len(differing):,} of "
            f"{len(ours):,} tokens (the first: {first!r}); {AGAIN}"
        )


def probes(tokenizer: Any) -> list[str]:
    """The texts of tokens of a vocabulary, evenly chosen."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    chosen = vocabulary[:: max(1, len(vocabulary) // PROBED)]
    return [f" {tokenizer.convert_tokens_to_string([token])} x" for token, _ in chosen]
