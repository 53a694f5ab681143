"""Compare quantized models that are there already with their original: one command, one report.

It writes a configuration into a folder of its own and runs the workflow there. The same command
again takes up a run that was stopped.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from radquant.bounds import between
from radquant.cli import run
from radquant.errors import UserError
from radquant.fetching import hub_listing
from radquant.files import read_json, write_text
from radquant.settings import stages
from radquant.settings.configuration import resolve
from radquant.settings.one_command import OPENI, configuration, corpus_source
from radquant.settings.options import parse

REPOSITORY = Path(__file__).resolve().parents[1]
EPILOG = """A model is a directory or OWNER/NAME[@REVISION] on the Hugging Face hub. A quantized one
may also be a .gguf file, there as OWNER/NAME[@REVISION]:FILE.gguf, and NAME=MODEL names it in the
report, the original, too."""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    add("--original", required=True, metavar="MODEL", help="what they were quantized from")
    add("--quantized", required=True, nargs="+", metavar="MODEL", help="what is compared with it")
    add(
        "--corpus",
        required=True,
        metavar="PATH",
        help=f"a table, archive or folder of reports; {OPENI} for Open-I, which is downloaded",
    )
    add(
        "--corpus-format",
        metavar="NAME",
        help="as in docs/inputs.md; recognised of a table, and needed of a folder",
    )
    add("--llama-cpp", action="store_true", help="run .gguf files in llama.cpp, too")
    add("--folder", type=Path, metavar="DIR", help="where the run lies (evaluations/NAMES)")
    add(
        "--cores",
        type=between("--cores", int, 1, 4096),
        default=1,
        metavar="N",
        help="jobs side by side (%(default)s)",
    )
    return parse(parser, stages.EVALUATE)


def sections_of(settings: Any) -> dict[str, Any]:
    """What the options say beside the sources, by the keys of a configuration."""
    found = {
        part.name: getattr(settings, part.name).model_dump(mode="json", exclude_defaults=True)
        for part in stages.EVALUATE
    }
    prompt = settings.generation.prompt
    own = found["generation"].get("prompt") is not None
    # The run lies in another folder than the one that paths are given from.
    found["generation"]["prompt"] = str(Path(prompt).resolve() if own else REPOSITORY / prompt)
    if "split_file" in found["corpus"]:
        found["corpus"]["split_file"] = str(Path(found["corpus"]["split_file"]).resolve())
    whole = found.pop("run")
    return {**found, **whole}


def corpus_of(args: argparse.Namespace) -> dict[str, Any]:
    if args.corpus == OPENI and not Path(OPENI).exists():
        default = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
        return {key: default["corpus"][key] for key in ("name", "format", "wheel")}
    return corpus_source(args.corpus, args.corpus_format)


def prepare(folder: Path, config: dict[str, Any]) -> None:
    """Write the configuration into the folder, which must hold no other report.

    One that stopped before its report may be changed: Snakemake runs what depends on the change.
    """
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    path = folder / "config.yaml"
    finished = (folder / "results" / "summary.json").is_file()
    if finished and path.is_file() and path.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{folder} holds another comparison, which would be overwritten; give another --folder"
        )
    if not path.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something else already; give another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def workflow(folder: Path, cores: int) -> int:
    """Run the workflow; its exit status."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(folder / "config.yaml")]
    # Of Snakemake's own words, only errors: the jobs tell how far they are.
    return subprocess.run([*command, "--cores", str(cores), "--quiet", "all"]).returncode


def main() -> None:
    args, settings = arguments()
    corpus, sections = corpus_of(args), sections_of(settings)
    models = (args.original, args.quantized)
    config = configuration(*models, corpus, sections, hub_listing, args.llama_cpp)
    resolve(config)
    names = "-".join(name for name in config["checkpoints"])[:100]
    folder = (args.folder or Path("evaluations") / names).resolve()
    prepare(folder, config)
    print(f"the comparison lies in {folder}", file=sys.stderr, flush=True)
    if workflow(folder, args.cores):
        raise UserError(
            f"the comparison did not finish; the reason stands above, and the logs in "
            f"{folder / 'results' / 'logs'}. Once it is mended, the same command goes on from there"
        )
    results = folder / "results"
    answer = read_json(results / "summary.json")["verdict"]
    print(*answer, f"Report: {results / 'report.md'} (and report.html)", sep="\n")


if __name__ == "__main__":
    run(main)
