"""A model's tokenizer as its files have it, and its chat template, wherever that stands."""

import json
from pathlib import Path
from typing import Any

from radquant.collecting import without_collecting
from radquant.errors import UserError
from radquant.failures import about, is_out_of_memory, is_panic, withheld_panics
from radquant.files import read_json
from radquant.token_texts import end_marks

# Where a chat template may stand that transformers' tokenizers do not read. Beside those that they
# do read, that is a processor's file, and the settings of a processor.
TEMPLATE_FILES = ("chat_template.json", "processor_config.json", "preprocessor_config.json")
PROBE = "The heart is normal in size. No pleural effusion: 2 views."
OWN_PADDING = (
    "Its tokenizer has a padding token that the original's has not ({token}, token {number}); no "
    "prompt holds it."
)
MORE_TEMPLATES = "additional_chat_templates"
# Files that say how a model reads and writes. transformers leaves some of them out if they are
# broken.
JSON_FILES = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("generation_config.json", *TEMPLATE_FILES),
)
TOKENIZER = "tokenizer.json"
SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


@without_collecting()
def read_tokenizer(directory: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer in `directory`, padding on the left.

    Raises UserError if it cannot be loaded.
    """
    from transformers import AutoTokenizer

    check_files(directory)
    code = trust_remote_code
    try:
        with withheld_panics():
            tokenizer = AutoTokenizer.from_pretrained(
                directory, trust_remote_code=code, local_files_only=True
            )
            tokenizer.decode(tokenizer(PROBE)["input_ids"])  # what fails on any text fails here
    except BaseException as error:  # the tokenizers' own panics are no Exception
        if is_out_of_memory(error) or not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise UserError(why_not(directory, error)) from None
    if getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None) is not None:
        check_repeats(tokenizer, directory)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = template_elsewhere(directory)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def same_tokenizer_files(one: Path, other: Path) -> bool:
    """Whether two directories hold a tokenizer of the same bytes."""
    names = (TOKENIZER, *JSON_FILES[:3], *SENTENCEPIECE)
    both = [[(each / name) for name in names if (each / name).is_file()] for each in (one, other)]
    if not both[0] or [path.name for path in both[0]] != [path.name for path in both[1]]:
        return False
    pairs = zip(*both, strict=True)
    return all(mine.read_bytes() == theirs.read_bytes() for mine, theirs in pairs)


def check_repeats(tokenizer: Any, directory: Path) -> None:
    """Raise UserError if a tokenizer cuts words at random, which is meant for training alone."""
    if getattr(tokenizer.backend_tokenizer.model, "dropout", None):
        raise UserError(
            f"{directory}/tokenizer.json has a dropout, which cuts words at random and each time "
            "otherwise; set it to null there"
        )


def check_tokenizer(directory: Path) -> None:
    """Raise UserError unless prompts can be made with the tokenizer in `directory`."""
    end_marks(read_tokenizer(directory))


def why_not(directory: Path, error: BaseException) -> str:
    """Why a tokenizer cannot be loaded, and what to do. No text but the model's own is in it."""
    pieces = [name for name in SENTENCEPIECE if (directory / name).is_file()]
    if pieces and not (directory / "tokenizer.json").is_file():
        return (
            f"{directory} lacks tokenizer.json, and {pieces[0]} is not read here; load it with "
            "AutoTokenizer.from_pretrained and save it with save_pretrained, where transformers, "
            "sentencepiece and protobuf are installed"
        )
    if (directory / "tokenizer.json").is_file() and not is_json(directory / "tokenizer.json"):
        return f"{directory}/tokenizer.json is no whole JSON; fetch or save the model again"
    return (
        f"the tokenizer of {directory} cannot be loaded ({about(error)}); fetch or save the "
        "model's tokenizer again"
    )


def check_files(directory: Path) -> None:
    """Raise UserError for a file that could not be read, or would be left out without a word."""
    for name in JSON_FILES:
        if (directory / name).is_file() and not is_json(directory / name):
            raise UserError(f"{directory / name} is no whole JSON; fetch or save the model again")
    more = directory / MORE_TEMPLATES
    if list(more.glob("*.jinja")) and not (directory / "chat_template.jinja").is_file():
        raise UserError(
            f"{directory} has chat templates in {MORE_TEMPLATES} and no chat_template.jinja; put "
            "the one to use there under that name"
        )


def is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        return False


def template_elsewhere(directory: Path) -> Any:
    """The chat template in one of the other places, as it stands there; None if there is none."""
    for name in TEMPLATE_FILES:
        if (directory / name).is_file():
            found = read_json(directory / name).get("chat_template")
            if found is not None:
                return found
    strange = sorted({*directory.glob("*.jinja"), *directory.glob("chat_template*")})
    if unread := [each for each in strange if each.is_file() and each.name not in TEMPLATE_FILES]:
        raise UserError(
            f"no chat template is read from {unread[0]}, and there is no other; name it "
            "chat_template.jinja, or remove it if the model is not for chats"
        )
    return None


def read_chat_template(path: Path) -> str:
    """The text of a file that holds a chat template."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the chat template {path} cannot be read ({type(error).__name__}); give a file of "
            "UTF-8 text"
        ) from None
