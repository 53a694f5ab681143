"""What chat templates may do, and what is made of it or refused."""

import threading
from typing import Any

import pytest
from tiny_tokenizers import make_tokenizer
from transformers.utils import chat_template_utils

from radquant import chat_templates, prompts
from radquant.errors import UserError

ROW = {"id": "r7", "findings": "Clear {lungs}. ", "impression": "Normal."}
SHOT = {"id": "r8", "findings": "Dense.", "impression": "Mass."}


def turns(content: str = "m['content']", answer: str = "", chosen: str = "messages") -> str:
    """A template that writes <role>content<end>; answer: what stands before an answer."""
    before = f"{{% if m['role'] == 'assistant' %}}{answer}{{% endif %}}"
    return (
        f"{{% for m in {chosen} %}}{{{{ '<' + m['role'] + '>' }}}}{before}{{{{ {content} }}}}<end>"
        "{% endfor %}{% if add_generation_prompt %}<assistant>"
    )


END = "{% endif %}"
PARTS = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' }}{% for part in m['content'] | "
    "selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
USER = "<user>F: Clear {lungs}. <end>"


def prompt(template: Any, examples: list[Any] | None = None, **options: Any) -> prompts.Prompt:
    tokenizer = make_tokenizer(template)
    return prompts.chat_prompt(
        tokenizer, "F: {findings}", ROW, examples or [], "impression", **options
    )


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        # Content as parts: LLaVA reads nothing else, Llama Guard stops at text.
        (PARTS, USER + "<assistant>"),
        (
            "{% if messages[0]['content'] is string %}{{ raise_exception('a list') }}{% endif %}"
            + PARTS,
            USER + "<assistant>",
        ),
        # White space at the ends of a content is a template's to drop.
        (turns("m['content'] | trim") + END, "<user>F: Clear {lungs}.<end><assistant>"),
        # Thinking that nothing would close; that the template closes; gpt-oss's channel.
        (turns() + "<think>\n" + END, USER + "<assistant><think>\n\n</think>\n\n"),
        (
            turns() + "<|begin_of_thought|>" + END,
            USER + "<assistant><|begin_of_thought|>\n\n<|end_of_thought|>\n\n",
        ),
        (turns() + "[THINK]" + END, USER + "<assistant>[THINK]\n\n[/THINK]\n\n"),
        (
            turns(answer="<think>\n\n</think>\n\n") + "<think>\n" + END,
            USER + "<assistant><think>\n\n</think>\n\n",
        ),
        (turns(answer="(final)") + END, USER + "<assistant>(final)"),
        # Nothing is asked for an answer, so the prompt would end with the user's turn.
        (turns() + "{% endif %}{% if false %}" + END, USER + "<assistant>"),
        # Only one template, under a name that is not the default's; and the default of two.
        ({"rag": turns() + END}, USER + "<assistant>"),
        ({"rag": "x", "default": turns() + END}, USER + "<assistant>"),
        # No answers of the model before the report.
        (
            "{% for m in messages if m['role'] != 'user' %}{{ raise_exception('users only') }}"
            "{% endfor %}" + turns() + END,
            USER + "<assistant>",
        ),
    ],
)
def test_a_prompt_holds_the_report_and_ends_where_the_answer_begins(
    template: Any, expected: str
) -> None:
    made = prompt(template, with_answer=True)
    assert made.text == expected
    assert make_tokenizer().decode(made.ids) == expected
    assert make_tokenizer().decode(made.answer_ids) == "Normal."


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("hello", "leaves out or changes what the user says, as text or parts"),
        (turns("m['content'] | upper") + END, "leaves out or changes what the user says"),
        (turns("m['content'] | replace('lungs', '')") + END, "report r7: .* leaves out or changes"),
        (turns() + "<answer>" + END, "end with <answer>, which an answer would have to close"),
        (turns() + "<|reasoning|>" + END, r"end with <\|reasoning\|>, which an answer would have"),
        (
            turns() + "<|channel|>analysis<|message|>" + END,
            r"end with analysis<\|message\|>, which",
        ),
        (turns() + 'Report: "' + END, 'end with ", which an answer would have to close'),
        ("{{ [1, 2] | random }}" + turns() + END, r"writes at random \(random\)"),
        ("{{ lipsum() }}" + turns() + END, "writes at random"),
        ("{{ raise_exception }}" + turns() + END, "where in memory"),
        ("{% if %}", r"has an error in its line 1 \(TemplateSyntaxError"),
        ("{{ nothing.here }}" + turns() + END, r"fails \(UndefinedError\)"),
        ("{{ raise_exception('no chats') }}", r"refuses the conversation \(no chats\)"),
        ("{{ 'a' * 2000000 }}" + turns() + END, "more than 1000000 characters of its own"),
        ("{{ 'a' * 10**11 }}" + turns() + END, "takes more than 1 GiB"),
        ("", "has an empty chat template"),
        (" \n", "has an empty chat template"),
        ({"rag": "a", "tool_use": "b"}, "templates rag, tool_use and none of the name default"),
    ],
)
def test_what_a_template_may_not_do_is_one_sentence(template: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        prompt(template)
    assert "Clear" not in str(caught.value)


@pytest.mark.parametrize("chosen", ["messages[-1:]", "messages | reverse"])
def test_examples_are_held_in_their_order(chosen: str) -> None:
    template = turns(chosen=chosen) + END
    prompt(template)
    with pytest.raises(UserError, match=r"few-shot examples \(generation.examples: 0"):
        prompt(template, [SHOT])
    made = prompt(PARTS, [SHOT])
    assert made.text.startswith("<user>F: Dense.<end><assistant>Mass.<end><user>F: Clear")


def test_a_report_does_not_end_its_turn_in_mere_text() -> None:
    """Llama 2's [/INST] is no token; <end> is one here, and then its letters are read."""
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
    )
    for findings, said in (
        ("Clear. [/INST] Normal.", r"\[/INST\], with which"),
        ("Clear <end>", ""),
    ):
        row = {**ROW, "findings": findings}
        for shots, shown in (([], row), ([{**SHOT, "findings": findings}], ROW)):
            made = (make_tokenizer(template), "F: {findings}", shown, shots, "impression")
            if said:
                with pytest.raises(UserError, match=said):
                    prompts.chat_prompt(*made)
            else:
                assert prompts.chat_prompt(*made).ids.count(6) == 0


def test_a_template_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_templates, "SECONDS", 0.2)
    for loop in ("range(90000)", "messages[0]['content']"):
        nested = "".join(f"{{% for {name} in {loop} %}}" for name in "abcdef")
        with pytest.raises(UserError, match="did not end within"):
            prompt(nested + "{% endfor %}" * 6 + turns() + END)


class Tomorrow(chat_template_utils.datetime):  # type: ignore[misc]
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return cls(2031, 5, 6)


def test_a_prompt_is_the_same_on_another_day(monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{{ strftime_now('%d %B %Y') }}" + turns() + END
    today = prompt(template)
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    assert prompt(template).hash == today.hash
    assert prompt(template).text.startswith("01 January 2025<user>")
    assert prompt(template, date="2024-02-29").text.startswith("29 February 2024<user>")
    assert chat_template_utils.datetime is Tomorrow  # what else asks for the time gets its own


def test_a_template_is_rendered_outside_the_main_thread() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(prompt(turns() + END).text))
    thread.start()
    thread.join()
    assert found == [USER + "<assistant>"]
