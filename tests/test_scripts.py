"""The command lines of all scripts: help, example, defaults, and no abbreviations."""

import argparse
import itertools
import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from radquant import meant
from radquant.errors import UserError
from radquant.files import read_table
from radquant.settings.options import flattened, option_of
from radquant.settings.section import Section

SCRIPTS = Path(__file__).parents[1] / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))


class Script:
    """A script's parsing, without what it does."""

    def __init__(self, name: str) -> None:
        self.name = name
        with mock.patch.dict(os.environ):  # one sets a variable for what it imports
            self.module = runpy.run_path(str(SCRIPTS / f"{name}.py"))

    def parse(self, *words: str) -> Any:
        with mock.patch.object(sys, "argv", [f"{self.name}.py", *words]):
            return self.module["arguments"]()

    def parser(self, *words: str) -> argparse.ArgumentParser:
        """What parses, as it is when it does."""
        seen: list[argparse.ArgumentParser] = []
        usual = argparse.ArgumentParser.parse_args

        def watched(self: argparse.ArgumentParser, *args: Any) -> argparse.Namespace:
            seen.append(self)
            return usual(self, *args)

        with mock.patch.object(argparse.ArgumentParser, "parse_args", watched):
            self.parse(*words)
        return seen[0]


@pytest.fixture(params=NAMES)
def script(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Script:
    """In a folder with the models of the examples."""
    for name in ("SmolLM2", "SmolLM2-awq", "medgemma"):
        (tmp_path / "models" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return Script(request.param)


def help_of(script: Script, capsys: pytest.CaptureFixture[str]) -> str:
    with mock.patch.dict(os.environ, {"COLUMNS": "100"}), pytest.raises(SystemExit) as end:
        script.parse("--help")
    assert end.value.code == 0
    return capsys.readouterr().out


def example_of(text: str, name: str) -> list[str]:
    """The words of the example behind the script's name, as a shell reads them."""
    found = re.search(r"^example:\n((?:  .*\n)+)\Z", text, re.M)
    assert found, text
    command = found[1].replace("\\\n", " ").partition(" < ")[0]
    python, script, *words = shlex.split(command)
    assert python.rpartition("/")[2] == "python"
    assert script == f"scripts/{name}.py"
    return words


def defaults(parsed: Any) -> Iterator[tuple[str, Any]]:
    """(option, default) of each field of the settings that a script reads."""
    settings = parsed[1] if isinstance(parsed, tuple) else None
    for section in vars(settings).values() if settings else ():
        yield from _defaults(type(section))


def _defaults(kind: type[Section]) -> Iterator[tuple[str, Any]]:
    for name, field in kind.model_fields.items():
        inner = flattened(field)
        if inner is not None:
            yield from _defaults(inner)
        elif not field.is_required():
            yield f"--{option_of(name, field)}", field.get_default(call_default_factory=True)


def test_the_example_parses_and_help_tells_every_default(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(script, capsys)
    words = example_of(text, script.name)
    parser = script.parser(*words)
    found = dict(defaults(script.parse(*words)))
    plain = {
        action.option_strings[-1]: action.default
        for action in parser._actions
        if action.option_strings
        and not action.dest.startswith("option_")
        and action.help != argparse.SUPPRESS
    }
    assert len(plain) >= 1
    blocks = {}
    for each in re.split(r"\n  (?=--?\w)", text)[1:]:
        words = each.split()
        names = itertools.takewhile(lambda word: word.startswith("-"), words)
        blocks |= {name.rstrip(","): " ".join(words) for name in names}
    settings = {name: each for name, each in found.items() if name in parser._option_string_actions}
    for option, default in (settings | plain).items():
        block = blocks[option]
        if (
            default is None
            or (default is False and option in plain)
            or default == argparse.SUPPRESS
        ):
            continue
        if isinstance(default, Section) or default in ((), []):
            continue
        items = default if isinstance(default, tuple | list) else [default]
        shown = " ".join(
            str(each).lower() if each in (True, False) else str(each) for each in items
        )
        shown = shown.replace(sys.executable, "this one")
        assert f"(default: {shown})" in block, option


def test_no_abbreviation_is_taken(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    words = example_of(help_of(script, capsys), script.name)
    parser = script.parser(*words)
    options = {name for action in parser._actions for name in action.option_strings}
    for option in sorted(options - {"-h"}):
        short = option[:-1]
        if short in options:
            continue
        with pytest.raises(SystemExit) as end:
            script.parse(*words, short)
        assert end.value.code == 2
        assert f"unrecognized arguments: {short}" in capsys.readouterr().err


MISSPELT = [
    ("evaluate", "--original a --quantised b --data c", "--quantised; did you mean --quantized?"),
    ("plan", "--gpu 24 config.yaml", "--gpu; did you mean --gpu-gb?"),
    ("sample_size", "--sumary=summary.json", "--sumary; did you mean --summary?"),
    ("plan", "config.yaml --colour", "--colour"),
    ("plan", "--results x -- --config", None),  # behind the dashes it is a file's name
]


@pytest.mark.parametrize(("name", "line", "said"), MISSPELT)
def test_a_misspelt_option_is_named_with_the_nearest(
    name: str, line: str, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script(name)
    if said is None:
        script.parse(*line.split())
        return
    with pytest.raises(SystemExit) as end:
        script.parse(*line.split())
    assert end.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"{name}.py: error: unrecognized arguments: {said}"


MEANT = [
    (
        "quantize",
        "--model mistralai/Mistral-7B-v0.1@v1 --output q",
        "scripts/fetch_model.py --hub mistralai/Mistral-7B-v0.1 --revision v1 --output "
        "models/Mistral-7B-v0.1",
    ),
    (
        "quantize",
        "--model . --calibration reports.csv --output q",
        "scripts/calibration_set.py --model MODEL --texts reports.csv --column COLUMN --output "
        "samples.parquet --record set.json",
    ),
    (
        "likelihood",
        "--model m.gguf",
        "scripts/take_checkpoint.py --original ORIGINAL --path m.gguf --output m",
    ),
    (
        "generate",
        "--model . --train reports.xlsx",
        "scripts/fetch_corpus.py --format table --path reports.xlsx --output raw.parquet",
    ),
    (
        "clean",
        "--raw reports.csv",
        "scripts/fetch_corpus.py --format table --path reports.csv --output raw.parquet",
    ),
    (
        "score",
        "--reference reports.csv",
        "scripts/annotate.py --texts reports.csv --column COLUMN --annotator lexicon --output "
        "reports.jsonl",
    ),
]


@pytest.mark.parametrize(("name", "line", "said"), MEANT)
def test_of_another_file_it_names_the_command_that_helps(
    name: str, line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which that script takes as it is named."""
    monkeypatch.chdir(tmp_path)
    for file in ("reports.csv", "reports.xlsx", "m.gguf"):
        (tmp_path / file).touch()
    with pytest.raises(UserError) as error:
        Script(name).parse(*line.split())
    assert f"python {said} " in str(error.value)
    script, *words = said.replace("MODEL", ".").replace("ORIGINAL", ".").split()
    Script(Path(script).stem).parse(*words)


def test_a_persons_own_table_is_told_what_makes_the_splits(tmp_path: Path) -> None:
    table = tmp_path / "reports.csv"
    table.write_text("findings,impression\nClear.,Normal.\n")
    with pytest.raises(
        UserError, match=r"no column 'id'.*; python .*fetch_corpus.py .*clean.py --raw"
    ):
        read_table(table, ["id"], meant.cleaned(table))
