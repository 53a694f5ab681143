"""Templates, examples, chat templates, tokens."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import CHAT, SPACED, make_tokenizer
from transformers import GenerationConfig

from radquant import prompts
from radquant.errors import UserError

COLUMNS = ["id", "findings", "impression", "indication", "text"]


# ------------------------------------------------------------------------------------ templates


@given(st.text(), st.text())
def test_column_text_is_never_substituted_again(findings: str, indication: str) -> None:
    template = "a {findings} b {indication} {{c}} {findings}"
    row = {"findings": findings, "indication": indication}
    assert prompts.render(template, row) == f"a {findings} b {indication} {{c}} {findings}"


def test_columns_are_listed_once_in_order() -> None:
    assert prompts.columns_of("{b} {{x}} {a} {b}") == ["b", "a"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "Findings: {finding}",
            r"uses \{finding\}, which is no column; the columns are id, findings",
        ),
        ("Write something.", r"uses no column.*the columns are id, findings"),
        ("{findings} {impression}", r"uses \{impression\}, which holds the reference.*columns are"),
        ("{text}", r"uses \{text\}, which holds the reference"),
        ("{findings", r"unpaired brace"),
        ("{findings} }", r"unpaired brace"),
        ("{}", r"not just the name of a column"),
        ("{findings:>10}", r"not just the name of a column"),
    ],
)
def test_a_wrong_template_is_refused(template: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prompts.check_template(template, COLUMNS, "impression")


def test_with_images_a_template_needs_no_column() -> None:
    prompts.check_template("Write something.", COLUMNS, "impression", images=True)
    with pytest.raises(UserError, match="holds the reference"):
        prompts.check_template("{impression}", COLUMNS, "impression", images=True)


def test_a_part_of_the_whole_report_gives_it_away() -> None:
    with pytest.raises(UserError, match="holds the reference"):
        prompts.check_template("{findings}", COLUMNS, "text")
    prompts.check_template("{indication}", COLUMNS, "text")
    prompts.check_template("{findings} {indication}", COLUMNS, "impression")


def test_a_template_file(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes("\ufeffFindings:\r\n{findings}\r\n".encode())
    assert prompts.read_template(path, None) == "Findings:\n{findings}"
    assert prompts.read_template(path, "{indication}") == "{indication}"
    path.write_bytes(b"one\ntwo\n\xff")
    with pytest.raises(UserError, match=r"prompt\.txt, line 3: not UTF-8"):
        prompts.read_template(path, None)
    path.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        prompts.read_template(path, None)
    with pytest.raises(UserError, match="does not exist"):
        prompts.read_template(tmp_path / "other.txt", None)


# ------------------------------------------------------------------------------------- examples


def reports(count: int = 40) -> list[dict[str, str]]:
    """Half of them normal; the others name a numbered finding each."""
    rows = []
    for number in range(count):
        impression = f"Opacity number {number}." if number % 2 else "No acute disease."
        findings = "Lungs " + "clear " * (number % 7 + 1)
        rows.append({"id": f"r{number}", "findings": findings, "impression": impression})
    return rows


def draw(rows: list[dict[str, str]], count: int, seed: int = 0, words: int = 20) -> list[Any]:
    return prompts.draw_examples(rows, ["findings"], "impression", count, words, seed)


@given(st.integers(0, 5), st.integers(0, 1000), st.integers(6, 12))
def test_examples_differ_fit_and_end_with_the_usual_answer(
    count: int, seed: int, words: int
) -> None:
    drawn = draw(reports(), count, seed, words)
    assert len({row["impression"] for row in drawn}) == len(drawn) == count
    assert all(len((r["findings"] + r["impression"]).split()) <= words for r in drawn)
    assert [r["impression"] for r in drawn][-1:] == ["No acute disease."] * (count > 0)
    assert drawn == draw(reports()[::-1], count, seed, words)  # the file's order is nothing


def test_the_seed_draws_the_examples() -> None:
    assert len({tuple(row["id"] for row in draw(reports(), 2, seed)) for seed in range(20)}) > 10


def test_other_examples_say_something_else() -> None:
    rows = reports()
    rows.append({"id": "x", "findings": "Lungs.", "impression": "No acute disease or opacity."})
    assert all(draw(rows, 2, seed)[0]["id"] != "x" for seed in range(20))


def test_too_few_examples_are_an_error() -> None:
    with pytest.raises(UserError, match=r"3 few-shot examples .* only 1 training reports"):
        draw(reports(40)[::2], 3)
    with pytest.raises(UserError, match=r"only 0 training reports .* at most 2 words"):
        draw(reports(), 1, words=2)


# ------------------------------------------------------------------------ chat templates, tokens

ROW = {"id": "a", "findings": "Clear {lungs}.", "impression": "Normal."}
SHOT = {"id": "b", "findings": "Dense.", "impression": "Mass."}


def make(tokenizer: Any, shots: Any = (), **options: Any) -> prompts.Prompt:
    return prompts.chat_prompt(
        tokenizer, "F: {findings}", ROW, list(shots), "impression", **options
    )


def test_a_chat_template_gets_examples_as_turns_one_bos_and_no_thinking() -> None:
    tokenizer = make_tokenizer(CHAT, adds_bos=True)
    made = make(tokenizer, [SHOT], with_answer=True)
    expected = "<s><user>F: Dense.<end><assistant>Mass.<end><user>F: Clear {lungs}.<end><assistant>"
    assert made.text == expected
    assert tokenizer.decode(made.ids) == expected
    assert made.ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.eos_token_id not in made.ids
    assert tokenizer.decode(made.answer_ids) == "Normal."


def test_a_base_model_gets_plain_blocks_and_one_bos() -> None:
    made = make(make_tokenizer(None, adds_bos=True), [SHOT], with_answer=True)
    assert made.text == "F: Dense.\nMass.\n\nF: Clear {lungs}.\n"
    assert made.ids[0] == 1
    assert made.ids.count(1) == 1
    assert 2 not in made.ids
    assert len(made.ids) == len(made.text) + 1
    assert make(make_tokenizer(None), [SHOT]).ids == made.ids[1:]


def test_the_answer_stands_where_the_chat_template_puts_it() -> None:
    tokenizer = make_tokenizer(SPACED)
    made = make(tokenizer, with_answer=True)
    assert tokenizer.decode(made.ids) == "<s>[F: Clear {lungs}.]"
    assert tokenizer.decode(made.answer_ids) == " Normal."


@given(st.integers(2, 60))
def test_the_tail_of_a_long_prompt_is_kept_and_the_rest_counted(limit: int) -> None:
    tokenizer = make_tokenizer(CHAT)
    whole = make(tokenizer)
    made = make(tokenizer, limit=limit)
    assert len(made.ids) == min(limit, len(whole.ids))
    assert made.truncated == len(whole.ids) - len(made.ids)
    assert made.ids[0] == tokenizer.bos_token_id
    assert made.ids[1:] == whole.ids[len(whole.ids) - len(made.ids) + 1 :]
    assert made.hash == whole.hash


def test_no_room_for_a_prompt_is_an_error() -> None:
    with pytest.raises(UserError, match="no room for a prompt"):
        make(make_tokenizer(CHAT), limit=1)


@pytest.mark.parametrize(
    ("chat", "expected"), [(CHAT, [2, 6, 9]), (SPACED, [2, 9]), (None, [2, 9])]
)
def test_every_end_of_an_answer_is_known(chat: str | None, expected: list[int]) -> None:
    config = GenerationConfig(eos_token_id=[9])
    assert prompts.end_token_ids(make_tokenizer(chat), config) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>long\nstory</think>\n\nNormal.", "Normal."),
        ("story</think>Normal.", "Normal."),
        ("<think>never finished", ""),
        ("Normal.", "Normal."),
        ("<unused94>thought\nwhy<unused95>Normal.", "Normal."),
    ],
)
def test_thinking_is_no_part_of_an_answer(text: str, expected: str) -> None:
    assert prompts.remove_thinking(text) == expected
