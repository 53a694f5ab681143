"""The pages for users: their links, their figures, and every command in them."""

import argparse
import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pandas as pd
import pytest
import yaml
from tiny_models import store, tiny_llama, write_samples
from transformers import AutoTokenizer
from workflow_helpers import REPOSITORY, copy_repository, dry_run

from radquant.checkpoints.loading import load
from radquant.corpus.sections import find_sections
from radquant.settings.configuration import resolve

DOCS = REPOSITORY / "docs"
# The pages whose commands are checked here.
PAGES = [
    REPOSITORY / "README.md",
    *(
        DOCS / f"{name}.md"
        for name in (
            *("README", "7b", "default-run", "faq", "installing", "loading", "tutorial"),
            "which-precision",
        )
    ),
]
IDS = [str(page.relative_to(REPOSITORY)) for page in PAGES]
README_WORDS = 600
# Programs of the system or of pip, of which the words alone are checked.
OTHERS = {
    "cat",
    "cd",
    "cp",
    "echo",
    "export",
    "grep",
    "head",
    "hf",
    "mkdir",
    "pip",
    "python3",
    "sed",
    ".",
}


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [Block(*each) for each in found if not languages or each[0] in languages]


def commands(text: str) -> list[list[str]]:
    """The words of each simple command, without variables before it and `.venv/bin/`."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;>()")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if word in ("&&", ";", "|", "(", ")"):
                if words:
                    found.append(plain(words))
                words = []
            else:
                words.append(word)
    return [words for words in found if words]


def plain(words: Sequence[str]) -> list[str]:
    rest = list(words)
    while rest and re.fullmatch(r"\w+=.*", rest[0]):
        rest.pop(0)
    for redirection in (">", ">>"):
        if redirection in rest:
            del rest[rest.index(redirection) :]
    return [rest[0].removeprefix(".venv/bin/"), *rest[1:]] if rest else []


def of_pages(*programs: str) -> list[tuple[str, list[str]]]:
    """(page, words) of every command of these programs."""
    return [
        (name, words)
        for name, page in zip(IDS, PAGES, strict=True)
        for block in blocks(page, "sh")
        for words in commands(block.text)
        if words[0] in programs
    ]


# ---- words, links and figures


def test_the_readme_is_short() -> None:
    """As `wc -w` counts."""
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").split()) <= README_WORDS


def test_the_readmes_figures_are_those_of_the_default_run() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    told = text.partition("## What it says")[2].partition("## Where to go next")[0]
    figures = re.findall(r"[+−]?\d+\.\d+|\d+ of \d+|\d+ min \d+ s|\d+ MB", told)
    there = (DOCS / "default-run.md").read_text(encoding="utf-8")
    assert len(figures) > 20
    assert [each for each in figures if each not in there] == []


def anchors(page: Path) -> set[str]:
    """Those that GitHub makes of the headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    bare = [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings]
    return {
        f"{name}-{bare[:place].count(name)}" if bare[:place].count(name) else name
        for place, name in enumerate(bare)
    }


def links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


@pytest.mark.parametrize(
    "page", [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_is_in_the_index() -> None:
    named = {link.partition("#")[0] for link in links(DOCS / "README.md")}
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} <= named
    assert {f"../{page.relative_to(REPOSITORY)}" for page in configurations()} <= named


def configurations() -> list[Path]:
    found = [*(REPOSITORY / "config").glob("*.yaml"), *(REPOSITORY / "examples").glob("*.yaml")]
    return [path for path in found if path.name != "schema.yaml"]


# ---- commands


def test_every_command_is_of_a_program_that_is_checked() -> None:
    known = OTHERS | {"snakemake", "python"}
    found = {
        words[0] for page in PAGES for block in blocks(page, "sh") for words in commands(block.text)
    }
    assert found <= known
    assert {"snakemake", "python"} <= found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_the_shell_reads_every_block(page: Path) -> None:
    for block in blocks(page):
        if block.language == "sh":
            read = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True)
            assert (read.returncode, read.stderr) == (0, ""), block.text


class Parsed(BaseException):
    """The options of a program were read."""


SCRIPTS = of_pages("python")


def of_other_pages() -> list[tuple[str, list[str]]]:
    """(page, words) of the commands on all other pages: their blocks need not say that they are
    `sh`, and hold what is no command, too."""
    pages = [*sorted(DOCS.glob("*.md")), REPOSITORY / "CONTRIBUTING.md"]
    return [
        (page.name, words)
        for page in pages
        if page not in PAGES
        for text in re.findall(r"^```(?:sh)?\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
        for line in text.replace("\\\n", " ").splitlines()
        if re.match(r"(?:\S+/)?(?:python|snakemake) ", line) and "…" not in line
        for words in commands(line)
    ]


ELSEWHERE = of_other_pages()
SCRIPTS += [
    each
    for each in ELSEWHERE
    if re.match(r"(?:scripts|benchmarks)/\w+\.py$", " ".join(each[1][1:2]))
]
# Those that name a configuration of the repository, or none.
PLANNED = [
    each
    for each in ELSEWHERE
    if each[1][0] == "snakemake"
    and not {"mine.yaml", "config/mine.yaml", "--workflow-profile"} & set(each[1])
]


def test_commands_of_other_pages_are_seen() -> None:
    assert len(SCRIPTS) > 60
    assert len(PLANNED) > 5


@pytest.mark.parametrize(("page", "words"), SCRIPTS, ids=[" ".join(w[:3]) for _, w in SCRIPTS])
def test_a_scripts_options_are_its_own(
    page: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each script reads its words; nothing is run."""
    if words[1] in ("-c", "-m"):
        compile(words[2], page, "exec") if words[1] == "-c" else __import__(words[2])
        return
    usual = argparse.ArgumentParser.parse_known_args

    def parse(parser: argparse.ArgumentParser, *args: object, **options: object) -> None:
        _, unknown = usual(parser, *args, **options)  # type: ignore[arg-type]
        raise Parsed(unknown)

    script = REPOSITORY / words[1].removeprefix("../../")
    if script.parent.name == "benchmarks":
        monkeypatch.syspath_prepend(script.parent)
    for folder in ("models/SmolLM2", "models/Mistral-7B-v0.1"):  # which commands before it fetch
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with (
        mock.patch.object(sys, "argv", words[1:]),
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", parse),
        pytest.raises(Parsed) as parsed,
    ):
        runpy.run_path(str(script), run_name="__main__")
    handed_on = "parse_known_args" in script.read_text("utf-8")
    assert handed_on or parsed.value.args == ([],)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository, with the tutorial's folder of a run, and its configuration as mine.yaml."""
    place = copy_repository(tmp_path_factory.mktemp("pages") / "radquant")
    shutil.copytree(REPOSITORY / "examples", place / "examples")
    shutil.copytree(REPOSITORY / "examples", place / "runs" / "german")
    for name in ("prompt-de.txt", "reports-de.csv"):
        shutil.copy(REPOSITORY / "examples" / name, place)
    config = read_yaml(REPOSITORY / "examples" / "config-de.yaml")
    for method in ("awq", "gptq"):
        name = f"{method}-w4"
        config["checkpoints"][name] = {"method": method, "bits": 4, "group_size": 64}
        config["precisions"][f"w4a16-{method}"] = {"checkpoint": name}
    (place / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    shutil.copy(place / "examples" / "prompt-de.txt", place / "runs" / "german" / "my-prompt.txt")
    return place


def read_yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


RUNS = of_pages("snakemake")


@pytest.mark.parametrize(("page", "words"), RUNS, ids=[" ".join(w[1:]) for _, w in RUNS])
def test_snakemake_plans_every_run(page: str, words: list[str], laid_out: Path) -> None:
    planned = dry_run(laid_out, *words[1:])
    assert planned.code == 0, planned.out + planned.err
    assert planned.jobs, words


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), PLANNED, ids=[" ".join(w[1:]) for _, w in PLANNED])
def test_snakemake_plans_what_other_pages_run(page: str, words: list[str], laid_out: Path) -> None:
    test_snakemake_plans_every_run(page, words, laid_out)


def test_recipes_go_into_the_tutorials_configuration(laid_out: Path) -> None:
    (block,) = blocks(DOCS / "which-precision.md", "yaml")
    config = read_yaml(REPOSITORY / "examples" / "config-de.yaml") | yaml.safe_load(block.text)
    with contextlib.chdir(laid_out):
        assert len(resolve(config).precisions) == 6


# ---- what the commands print


def run_blocks(place: Path, *texts: str, **variables: str) -> str:
    """Run blocks of shell commands, one shell after another, and return what they said."""
    environment = {**os.environ, **variables}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    said = ""
    for text in texts:
        command = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said += done.stdout + done.stderr
    return said


def cells(line: str) -> list[str]:
    return [each.strip() for each in line.strip("|\n ").split("|")]


def test_7b_is_what_the_plan_says(laid_out: Path) -> None:
    """Disk and memory; times and batches are this machine's."""
    page = (DOCS / "7b.md").read_text(encoding="utf-8")
    block = blocks(DOCS / "7b.md", "sh")[0]
    said = run_blocks(laid_out, block.text)
    planned = [cells(line)[:4] for line in said.splitlines() if line.startswith("| ")][2:]
    told = [cells(line)[:4] for line in page.splitlines() if line.startswith("| `")]
    assert [row[0] for row in planned] == ["original", "w8a16", "w4a16", "w4a16-gptq", "w4a8"]
    by_name = {row[0].strip("`"): row[1:] for row in told}
    assert {row[0]: row[1:] for row in planned} == by_name
    (snippet,) = blocks(DOCS / "7b.md", "python")
    (shown,) = blocks(DOCS / "7b.md", "text")
    assert shown.text in run_blocks(laid_out, f"python - <<'END'\n{snippet.text}END")


CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def default_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose results are those of a default run, but of a tiny model."""
    place = tmp_path_factory.mktemp("loading")
    results = place / "results"
    original = tiny_llama(results / "models" / "original", texts=["impression"])
    tokenizer = AutoTokenizer.from_pretrained(original)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(original)
    (results / "calibration").mkdir()
    write_samples(results / "calibration")
    options = ("--method", "rtn", "--bits", "4", "--group-size", "64")
    store(original, results / "checkpoints" / "awq-w4", *options)
    return place


def test_every_snippet_of_loading_runs(
    default_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order, the command that makes a checkpoint for transformers included."""
    for block in blocks(DOCS / "loading.md", "python", "sh"):
        with contextlib.chdir(default_results):
            if block.language == "python":
                exec(compile(block.text, "loading.md", "exec"), {})  # our own page
                continue
            (words,) = (each for each in commands(block.text) if each[0] == "python")
            with mock.patch.object(sys, "argv", words[1:]):
                runpy.run_path(str(REPOSITORY / words[1]), run_name="__main__")
    said = capsys.readouterr().out
    assert "torch.Size([128, 64])" in said  # [inputs, outputs] of the down projection
    assert re.search(r"^14 \S+.* \d+$", said, re.M)  # layers, kernel, bytes
    loaded = load(default_results / "results" / "checkpoints" / "awq-w4")
    kept = load(default_results / "awq-w4-compressed")
    assert loaded.layers_quantized == kept.layers_quantized == 14


# ---- the tutorial


def test_the_invented_reports_are_those_of_the_script() -> None:
    script = REPOSITORY / "examples" / "make_reports_de.py"
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert said.stdout == (REPOSITORY / "examples" / "reports-de.csv").read_text(encoding="utf-8")


def test_the_invented_reports_are_cut_at_their_german_headings() -> None:
    """Each section holds what the script wrote under its heading, and no more."""
    config = read_yaml(REPOSITORY / "examples" / "config-de.yaml")["corpus"]
    table = pd.read_csv(REPOSITORY / "examples" / "reports-de.csv", sep=";", dtype=str)
    assert len(table) > 100
    assert table["Patient"].nunique() < len(table)
    for text in table["Bericht"]:
        parts = dict(part.split(":\n", 1) for part in text.split("\n\n") if ":\n" in part)
        found = find_sections(text, config["headings"])
        assert found.findings == parts["Befund"]
        assert found.impression == parts["Beurteilung"]
        assert found.indication == parts["Klinische Angaben"]
        assert found.comparison == parts.get("Voraufnahmen", "")


def shape(text: str) -> list[str]:
    """The lines of what was printed, whatever its figures and widths are."""
    lines = (re.sub(r"[+−-]?\d[\d.,]*(e[+-]\d+)?", "#", line) for line in text.splitlines())
    return [" ".join(re.sub(r"-{2,}:?", "-", line).split()) for line in lines if line.strip()]


@pytest.mark.long
def test_the_tutorial_leads_to_its_verdict(tmp_path: Path, downloads: Path) -> None:
    """By its own commands, in order; what it shows is what they print, figures aside."""
    place = copy_repository(tmp_path / "radquant")
    shutil.copytree(REPOSITORY / "examples", place / "examples")
    (place / "runs" / "german" / "results").mkdir(parents=True)
    (place / "runs" / "german" / "results" / "downloads").symlink_to(downloads.resolve())
    found = blocks(DOCS / "tutorial.md", "sh", "text")
    said = ""
    for block in found:
        if block.language == "text":
            lines = shape(said)
            assert [line for line in shape(block.text) if line not in lines] == []
        elif "pip install" not in block.text:
            # The folder is there already, with what spares the downloads.
            text = block.text.replace("cp -r examples runs/german", "cp -r examples/. runs/german")
            said = run_blocks(place, text)
    report = (place / "runs" / "german" / "results" / "report.md").read_text(encoding="utf-8")
    assert "**Unfit to answer: " in report
    assert "the annotator reads English alone" in report
