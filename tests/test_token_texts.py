"""Texts through a tokenizer and back, and what may not be lost or taken for something else."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import CHAT, byte_tokenizer, make_tokenizer
from tokenizers import normalizers, processors
from transformers import GenerationConfig

from radquant import prompts, token_texts
from radquant.errors import UserError
from radquant.generation.outputs import read_output
from radquant.generation.prompting import check_distinct, check_words

TURNS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKS = ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>")


def prompt(tokenizer: Any, findings: str, template: str = "F: {findings}", **options: Any) -> Any:
    row = {"id": "r7", "findings": findings, "impression": "Normal."}
    return prompts.chat_prompt(tokenizer, template, row, [], "impression", **options)


BYTES = byte_tokenizer(MARKS)
BYTES.chat_template = TURNS


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_held_and_none_is_a_special_token(text: str) -> None:
    made = prompt(BYTES, text, with_answer=True)
    specials = [token for token in made.ids if token in BYTES.all_special_ids]
    assert len(specials) == 4  # BOS, user, end, assistant
    assert made.unknown == 0


@pytest.mark.parametrize("mark", [*MARKS, "<s></s>", "<|end|><|assistant|>", "a</s>"])
def test_a_report_that_looks_like_a_special_token_is_text(mark: str) -> None:
    plain, made = prompt(BYTES, "Clear."), prompt(BYTES, f"Clear. {mark} Lungs.")
    for token in BYTES.all_special_ids:
        assert made.ids.count(token) == plain.ids.count(token)
    assert BYTES.decode(made.ids) == made.text
    meant = prompt(BYTES, "Clear.", "F: <|end|> {findings}")  # whoever writes prompts may
    assert meant.ids.count(BYTES.convert_tokens_to_ids("<|end|>")) == 2
    row = {"id": "r7", "findings": "Clear.", "impression": f"Normal. {mark}"}
    answer = prompts.chat_prompt(
        BYTES, "{findings}", row, [row], "impression", with_answer=True
    ).answer_ids
    assert BYTES.decode(answer) == row["impression"]
    assert not set(answer) & set(BYTES.all_special_ids)


def test_what_the_tokenizer_puts_before_a_text_is_put_there_once() -> None:
    tokenizer = byte_tokenizer(MARKS)
    assert token_texts.started_ids(tokenizer, "a") == tokenizer("a")["input_ids"]
    names = [("<s>", 0), ("</s>", 1), ("<|user|>", 2)]
    for single, start in (("<s> $A", [0]), ("<s> $A </s>", [0]), ("<s> <|user|> $A", [0, 2])):
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=names
        )
        alone = tokenizer("a", add_special_tokens=False)["input_ids"]
        assert token_texts.started_ids(tokenizer, "a") == start + alone
        text = tokenizer.decode(start) + "a"
        assert token_texts.started_ids(tokenizer, text) == start + alone
        tokenizer.chat_template = TURNS  # which writes a BOS of its own
        made = prompt(tokenizer, "Clear.")
        assert made.ids.count(0) == 1
        assert made.ids[-1] == 3
        tokenizer.chat_template = None


def test_text_that_is_lost_without_a_mark_stops_and_names_the_report() -> None:
    tokenizer = make_tokenizer(CHAT)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("lungs", "")
    prompt(tokenizer, "Clear heart.")
    with pytest.raises(
        UserError, match=r"report r7: .* loses some of the text without a mark"
    ) as e:
        prompt(tokenizer, "Clear lungs.")
    assert "Clear" not in str(e.value)
    row = {"id": "r7", "findings": "Clear.", "impression": "Clear lungs."}
    with pytest.raises(UserError, match=r"column 'impression': .* loses some"):
        prompts.chat_prompt(tokenizer, "{findings}", row, [], "impression", with_answer=True)


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Lowercase(),
        normalizers.NFKC(),
        normalizers.NFD(),
        normalizers.Replace(" ", "\u2581"),
        normalizers.Nmt(),
    ],
)
def test_what_tokenizers_may_change(normalizer: Any) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizer
    prompt(tokenizer, "\u0338A  FIN\ufb01ne\u200b \u00d6dem, 5 \u00b5m \u2265 \u00bd\r\n\x07.")


def opened(tokenizer: Any) -> Any:
    return SimpleNamespace(tokenizer=tokenizer, wanted=SimpleNamespace(model="m"))


def test_a_report_with_unknown_characters_stops_the_run(capsys: Any) -> None:
    tokenizer = make_tokenizer(CHAT)
    known, some = prompt(tokenizer, "Clear."), prompt(tokenizer, "Cle\u00e4r \u2265.")
    assert (known.unknown, some.unknown) == (0, 2)
    assert prompt(tokenizer, "Cle\u200bar\xad.").unknown == 0  # nothing that anybody could see
    check_words([known], "F: {findings}", opened(tokenizer))
    assert not capsys.readouterr().err
    with pytest.raises(UserError, match=r"something in 1 of 2 reports, .* first in report r7"):
        check_words([known, some], "F: {findings}", opened(tokenizer))
    answer = {"id": "r7", "findings": "Clear.", "impression": "\u2265"}
    made = prompts.chat_prompt(tokenizer, "{findings}", answer, [], "impression", with_answer=True)
    assert made.unknown == 1
    template = "\u2265 {findings}"  # whoever writes prompts is told
    made = prompt(tokenizer, "Clear.", template)
    assert made.unknown == 0
    check_words([made], template, opened(tokenizer))
    assert (
        "does not know all words of the prompt; the model reads 1 marks" in capsys.readouterr().err
    )


def test_prompts_differ_where_their_texts_do() -> None:
    tokenizer = make_tokenizer(CHAT)
    one, other = prompt(tokenizer, "Cle\u00e4r."), prompt(tokenizer, "Cle\u00f6r.")
    check_distinct([one, prompt(tokenizer, "Clear."), prompt(tokenizer, "Clear.")])
    with pytest.raises(UserError, match="differ, and their prompts are the same tokens"):
        check_distinct([one, other])


def test_tokens_beyond_the_vocabulary_are_named() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["effusion"])
    ids = prompt(tokenizer, "effusion").ids
    size = len(tokenizer)
    token_texts.check_known(tokenizer, ids, size, "x")
    token_texts.check_known(tokenizer, ids, None, "x")
    with pytest.raises(UserError, match=rf"the token {size - 1} \(effusion\), and .* {size - 1}"):
        token_texts.check_known(tokenizer, ids, size - 1, "x")


def test_a_token_to_fill_up_with_is_one_that_the_model_has() -> None:
    tokenizer = make_tokenizer()
    for pad, expected in ((5, 5), (40, 0), (None, 0)):
        tokenizer.pad_token_id = pad
        assert token_texts.padding_id(tokenizer, 40) == expected


def ends(template: str, eos: Any = None) -> Any:
    tokenizer = make_tokenizer(template)
    return token_texts.endings(tokenizer, GenerationConfig(eos_token_id=eos), 50, "2025-01-01")


def test_what_ends_an_answer() -> None:
    tagged = CHAT.replace("m['content'] +", "m['content'] + ('</answer>' if loop.last else '') +")
    assert ends(CHAT) == ((2, 6), ())
    assert ends(CHAT, [3, 50, -1]) == ((2, 3, 6), ())
    assert ends(tagged) == ((2,), ("</answer>",))
    quoted = CHAT.replace("m['content']", "m['content'] | tojson")
    with pytest.raises(UserError, match="closes answers with '\"'"):
        ends(quoted)
    with pytest.raises(UserError, match=r"eos_token_id .* is '</s>', which is no number"):
        token_texts.end_token_ids(make_tokenizer(CHAT), type("C", (), {"eos_token_id": "</s>"}))


def test_thinking_between_special_tokens_is_no_part_of_an_answer() -> None:
    tokenizer = byte_tokenizer(("<s>", "</s>", "[THINK]", "[/THINK]"))
    for text in ("[THINK]Is it?[/THINK]Normal.", "Is it?[/THINK] Normal.", "Normal.[THINK]Or"):
        ids = tokenizer(text)["input_ids"]
        assert read_output(tokenizer, [*ids, 1], {1}, ()).text == "Normal."
