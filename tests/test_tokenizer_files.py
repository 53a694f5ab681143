"""Tokenizers as their files have them: what can be loaded, and one sentence for the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_llama
from tiny_tokenizers import CHAT, byte_tokenizer, make_tokenizer

from radquant.chat_templates import template_of
from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.files import read_json, write_json
from radquant.tokenizer_files import check_tokenizer, read_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tokenizer(CHAT).save_pretrained(tmp_path)
    return tmp_path


def elsewhere(folder: Path, name: str, content: Any) -> None:
    """Move the chat template to another file."""
    (folder / "chat_template.jinja").unlink()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.json", {"chat_template": CHAT}),
        ("processor_config.json", {"chat_template": CHAT, "processor_class": "X"}),
        ("chat_template.json", {"chat_template": {"default": CHAT, "rag": "x"}}),
        ("chat_template.json", {"chat_template": [{"name": "rag", "template": CHAT}]}),
    ],
)
def test_a_chat_template_is_found_wherever_it_stands(folder, name, content) -> None:
    elsewhere(folder, name, content)
    assert template_of(read_tokenizer(folder)) == CHAT


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", '{"version": "1.0", "model"', "tokenizer.json is no whole JSON"),
        ("tokenizer.json", "{}", r"tokenizer of .* cannot be loaded \("),
        ("tokenizer_config.json", "[]", "tokenizer_config.json is no whole JSON"),
        ("generation_config.json", "{", "generation_config.json is no whole JSON"),
        ("chat_template.json", "{", "chat_template.json is no whole JSON"),
        ("chat_template.jinja", "{% if %}", "has an error in its line 1"),
        ("chat_template.jinja", "", "has an empty chat template"),
        ("chat_template.jinja", "hello", "leaves out or changes what the user says"),
    ],
)
def test_a_file_that_is_broken_is_named(folder: Path, name: str, content: str, said: str) -> None:
    check_tokenizer(folder)
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=said):
        check_tokenizer(folder)


def test_a_template_under_a_name_that_is_not_read(folder: Path) -> None:
    elsewhere(folder, "chat_template.txt", CHAT)
    with pytest.raises(UserError, match=r"no chat template is read from .*/chat_template.txt, "):
        read_tokenizer(folder)


def test_templates_with_names_alone(folder: Path) -> None:
    elsewhere(folder, "additional_chat_templates/rag.jinja", CHAT)
    with pytest.raises(UserError, match=r"additional_chat_templates and no chat_template.jinja"):
        read_tokenizer(folder)


def test_a_tokenizer_of_sentencepiece_alone(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"})
    with pytest.raises(
        UserError, match=r"lacks tokenizer.json, and tokenizer.model is not read .* save_pretrained"
    ):
        read_tokenizer(folder)


def test_neither_padding_nor_truncation_of_a_file_touches_a_prompt(folder: Path) -> None:
    text = "The lungs are clear."
    expected = read_tokenizer(folder)(text)["input_ids"]
    stored = read_json(folder / "tokenizer.json")
    stored["truncation"] = dict(direction="Right", max_length=3, strategy="LongestFirst", stride=0)
    stored["padding"] = dict(
        strategy={"Fixed": 64}, direction="Right", pad_id=0, pad_type_id=0, pad_token="<pad>"
    ) | {"pad_to_multiple_of": None}
    write_json(folder / "tokenizer.json", stored)
    assert read_tokenizer(folder)(text)["input_ids"] == expected


def test_words_that_are_cut_at_random(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    check_tokenizer(tmp_path)
    stored = read_json(tmp_path / "tokenizer.json")
    stored["model"]["dropout"] = 0.1
    write_json(tmp_path / "tokenizer.json", stored)
    with pytest.raises(UserError, match=r"tokenizer.json has a dropout"):
        check_tokenizer(tmp_path)


@pytest.mark.parametrize("pad", [-1, 5000])
def test_a_padding_token_that_the_model_has_not(tmp_path: Path, pad: int) -> None:
    directory = tiny_llama(tmp_path)
    write_json(
        directory / "config.json", read_json(directory / "config.json") | dict(pad_token_id=pad)
    )
    assert load(directory).model.config.pad_token_id is None
