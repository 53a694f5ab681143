"""Compare quantized models that are there already with their original: one command, one report.

All write the same reports, which are scored against the radiologists' by the findings in them.
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
from radquant.cli import new_parser, run
from radquant.errors import UserError
from radquant.fetching import hub_listing
from radquant.files import read_json, write_text
from radquant.instructions import read_template
from radquant.settings import stages
from radquant.settings.cleaning import Evaluation
from radquant.settings.configuration import resolve
from radquant.settings.generation import Generation
from radquant.settings.one_command import OPENI, configuration, corpus_source, inputs, reference
from radquant.settings.options import parse
from radquant.settings.task import Task

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLE = r"""python scripts/evaluate.py --original models/Mistral-7B-v0.1 \
    --quantized models/Mistral-7B-v0.1-awq --data reports.csv \
    --num-samples 100 --prompt-file prompts/impression.txt \
    --text-column impression"""
EPILOG = """A model is a directory or OWNER/NAME[@REVISION] on the Hugging Face hub. A quantized one
may also be a .gguf file, there as OWNER/NAME[@REVISION]:FILE.gguf, and NAME=MODEL names it in the
report, the original, too."""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE, EPILOG)
    add = parser.add_argument
    add("--original", required=True, metavar="MODEL", help="what they were quantized from")
    add("--quantized", required=True, nargs="+", metavar="MODEL", help="what is compared with it")
    add(
        "--data",
        required=True,
        metavar="PATH",
        help=f"a table, archive or folder of reports; {OPENI} for Open-I, which is downloaded",
    )
    add(
        "--data-format",
        metavar="NAME",
        help="as in docs/inputs.md; recognised of a table, and needed of a folder",
    )
    add(
        "--num-samples",
        type=between("--num-samples", int, 1, 1e7),
        default=Evaluation().reports,
        metavar="N",
        help="reports that are compared, drawn from those held out (--eval-fraction)",
    )
    add(
        "--prompt-file",
        type=Path,
        default=Path(Generation().prompt),
        metavar="FILE",
        help="what the models are told, with {findings} where that text goes",
    )
    add(
        "--text-column",
        default=Task().target,
        metavar="NAME",
        help="column of the texts that the models are to write; a column not named after a part of "
        "a report is taken for the impression",
    )
    add("--llama-cpp", action="store_true", help="run .gguf files in llama.cpp, too")
    add(
        "--folder", type=Path, metavar="DIR", help="where the run lies (default: evaluations/NAMES)"
    )
    add(
        "--cores",
        type=between("--cores", int, 1, 4096),
        default=1,
        metavar="N",
        help="jobs side by side",
    )
    return parse(parser, stages.EVALUATE)


def sections_of(args: argparse.Namespace, settings: Any) -> dict[str, Any]:
    """What the options say beside the sources, by the keys of a configuration."""
    found = {
        part.name: getattr(settings, part.name).model_dump(mode="json", exclude_defaults=True)
        for part in stages.EVALUATE
    }
    prompt = args.prompt_file
    if str(prompt) == Generation().prompt and not prompt.exists():  # called from elsewhere
        prompt = REPOSITORY / prompt
    # The run lies in another folder than the one that paths are given from.
    found["generation"]["prompt"] = str(prompt.resolve())
    found["evaluation"] = {"reports": args.num_samples}
    target, columns = reference(args.text_column, found["corpus"].get("columns", {}))
    asked = found["task"].get("inputs") or inputs(read_template(prompt, None), target)
    found["task"] = {"inputs": asked, "target": target}
    if columns:
        found["corpus"]["columns"] = columns
    for keys in (found["corpus"], found["scoring"].get("radgraph", {})):
        for name in {"split_file", "directory"} & keys.keys():
            keys[name] = str(Path(keys[name]).resolve())
    whole = found.pop("run")
    return {**found, **whole}


def corpus_of(args: argparse.Namespace) -> dict[str, Any]:
    if args.data == OPENI and not Path(OPENI).exists():
        default = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
        return {key: default["corpus"][key] for key in ("name", "format", "wheel")}
    return corpus_source(args.data, args.data_format)


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
    # Snakemake itself prints errors only. The jobs tell how far they are.
    return subprocess.run([*command, "--cores", str(cores), "--quiet", "all"]).returncode


def main() -> None:
    args, settings = arguments()
    corpus, sections = corpus_of(args), sections_of(args, settings)
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
            f"{folder / 'results' / 'logs'}. Once it is mended, the same command goes on from "
            "there. (evaluation.reports is --num-samples here, and cleaning.eval_fraction is "
            "--eval-fraction.)"
        )
    results = folder / "results"
    answer = read_json(results / "summary.json")["verdict"]
    print(*answer, f"Report: {results / 'report.md'} (and report.html)", sep="\n")


if __name__ == "__main__":
    run(main)
