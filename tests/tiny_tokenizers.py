"""Small tokenizers, and chat templates as models have them."""

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '<end>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}"
    "{% if enable_thinking is not false %}{{ '<think>' }}{% endif %}{% endif %}"
)
# As Mistral's: a space that belongs to the answer's turn, and its end is the EOS.
SPACED = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[' + m['content'] + ']' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)


def make_tokenizer(chat: str | None = None, adds_bos: bool = False) -> Any:
    """A character tokenizer, so that any text can be spelled and every character is counted."""
    marks = ["<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>", "<end>", "<think>"]
    letters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {token: number for number, token in enumerate(marks + letters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(marks)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMED)
    fast.chat_template = chat
    return fast


def word_tokenizer(words: Iterable[str], **special: dict[str, str]) -> Any:
    """A tokenizer that knows these words, each by its place. special: further named tokens."""
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMED, **special)


def byte_tokenizer(specials: tuple[str, ...] = ("<s>", "</s>")) -> Any:
    """A tokenizer of bytes, which can spell anything, and of these special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(specials), initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(["the lungs are clear"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=specials[0],
        eos_token=specials[1],
        additional_special_tokens=list(specials[2:]),
    )
