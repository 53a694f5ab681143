"""Tokens as bytes, and what clients are told of an answer while it is written."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from radquant.generation.running import Chance
from radquant.serving.parts import Answer, Part, behind, next_part
from radquant.serving.token_strings import bytes_of, text_of

BYTES = byte_tokenizer()
END = 1


def pieces_tokenizer() -> Any:
    """As SentencePiece's: words with a mark for the space before them, and bytes for the rest."""
    words = ["<unk>", "</s>", "▁the", "▁lungs", "▁are", "▁clear", ".", "▁", "s"]
    words += [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


PIECES = pieces_tokenizer()


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="the lungs\n é漢😀'Ġ", max_size=30))
def test_the_bytes_of_tokens_are_the_text(text: str) -> None:
    ids = BYTES(text)["input_ids"]
    assert b"".join(bytes_of(BYTES, token, None) for token in ids) == text.encode()


def test_tokens_of_a_vocabulary_of_pieces() -> None:
    """A space is the token's that it stands before; a byte is no character."""
    ids = PIECES.convert_tokens_to_ids(
        ["▁the", "▁lungs", ".", "<0xE6>", "<0xBC>", "<0xA2>", "</s>"]
    )
    told = [bytes_of(PIECES, *pair) for pair in zip(ids, (None, *ids), strict=False)]
    assert told == [b"the", b" lungs", b".", b"\xe6", b"\xbc", b"\xa2", b"</s>"]
    assert text_of(told[3]) == "bytes:\\xe6"
    assert text_of(b"".join(told[3:6])) == "漢"
    assert bytes_of(PIECES, 10_000, None) == b""


def test_a_completion_keeps_the_space_that_decoding_drops() -> None:
    ids = PIECES.convert_tokens_to_ids(["▁the", "▁lungs", "▁are", "▁clear", "."])
    assert PIECES.decode(ids[2:]) == "are clear."
    assert behind(PIECES, ids[:2], ids[2:]) == " are clear."
    assert behind(PIECES, ids[:4], ids[4:]) == "."
    half = PIECES.convert_tokens_to_ids(["▁the", "<0xE6>", "<0xBC>"])  # of a character
    rest = PIECES.convert_tokens_to_ids(["<0xA2>", "▁are"])
    assert behind(PIECES, half, rest) == "漢 are"


def parts_of(
    tokenizer: Any, prompt: list[int], written: list[int], **asked: Any
) -> tuple[list[Part], Answer]:
    """All that is told while tokens are written one by one."""
    answer = Answer(prompt, len(written), stop=asked.pop("stop", ()), tell=print, **asked)
    answer.own = prompt
    found = []
    for place, token in enumerate(written):
        answer.written.append(token)
        if answer.top is not None:
            answer.chances.append(Chance(token, -1.0 - place, ()))
        if part := next_part(tokenizer, answer, {END}):
            found.append(part)
            if part.finish is not None:
                break
    return found, answer


TEXTS = st.text(alphabet="the lungs\n é漢😀STOP", max_size=30)


@settings(max_examples=100, deadline=None)
@given(text=TEXTS, stop=st.sampled_from([(), ("STOP",), ("s", "\n")]), ended=st.booleans())
@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_tells_what_the_whole_is(text: str, stop, ended: bool, chat: bool) -> None:
    """Text and tokens; and the tokens that are told of spell the text."""
    ids = BYTES(text)["input_ids"] + [END] * ended
    if not ids:
        return
    asked = {"stop": stop, "chat": chat, "top": 0}
    prompt = BYTES("the")["input_ids"]
    streamed, _ = parts_of(BYTES, prompt, ids, stream=True, **asked)
    (whole,), answer = parts_of(BYTES, prompt, ids, **asked)
    assert "".join(part.text for part in streamed) == whole.text
    assert [token for part in streamed for token in part.tokens] == list(whole.tokens)
    assert (streamed[-1].finish, streamed[-1].shown) == (whole.finish, whole.shown)
    cut = min([text.find(mark) for mark in stop if mark in text], default=len(text))
    assert whole.text == (text[:cut].strip() if chat else text[:cut])
    assert whole.finish == ("stop" if ended or cut < len(text) else "length")
    spelled = b"".join(token.spelled for token in whole.tokens if not token.hidden).decode()
    assert whole.text in spelled
    if not chat and cut == len(text):
        assert spelled == text
        assert len(whole.tokens) == len(ids)  # the one that ended it, too
    # The fewest tokens that show it all.
    shown = answer.written[: whole.shown]
    assert whole.text in BYTES.decode(shown, skip_special_tokens=True)
    if whole.text:
        assert whole.text not in BYTES.decode(shown[:-1], skip_special_tokens=True)


def test_the_prompt_is_told_before_the_first_part() -> None:
    prompt = PIECES.convert_tokens_to_ids(["▁the", "▁lungs"])
    written = PIECES.convert_tokens_to_ids(["▁are", "▁clear", "."])
    for stream in (False, True):
        answer = Answer(prompt, 3, stop=(), tell=print, stream=stream, top=1, echo=True)
        answer.own, answer.before = prompt, "the lungs"
        answer.prompt_chances[1] = Chance(prompt[1], -2.0, ((prompt[0], -0.5),))
        told: list[Part] = []
        for token in written:
            answer.written.append(token)
            answer.chances.append(Chance(token, -1.0, ()))
            told += filter(None, [next_part(PIECES, answer, {END})])
        assert "".join(part.text for part in told) == "the lungs are clear."
        tokens = [token for part in told for token in part.tokens]
        assert [token.spelled for token in tokens] == [b"the", b" lungs", b" are", b" clear", b"."]
        assert [token.logprob for token in tokens] == [None, -2.0, -1.0, -1.0, -1.0]
        assert tokens[1].likeliest == ((b" the", -0.5),)
        assert len(told) == (3 if stream else 1)


def test_thinking_is_counted_and_not_told() -> None:
    thinker = byte_tokenizer(("<s>", "</s>", "<think>", "</think>"))
    ids = [t for p in ("<think>", "s", "</think>", " are", "s") for t in thinker(p)["input_ids"]]
    (part,), _ = parts_of(thinker, ids[:1], ids, chat=True, top=0)
    assert part.text == "ares"
    assert b"".join(token.spelled for token in part.tokens) == b" ares"
    assert part.shown == len(ids)
