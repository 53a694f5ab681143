"""Our GGUF files beside those of llama.cpp's own quantizer, with and without importance matrix.

All come from the same model and the same calibration texts. Perplexity is that of reports which no
calibration saw, by this package's own engine from the exact values of each file. So what is
compared is the rounding and nothing else. Both originals come from GGUF files themselves, so the
weights that are quantized are moved off their grids first (`off_grid.py`), unless --on-grid. What
was measured already is not measured again: remove --work to start anew.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
from measuring import REPOSITORY, measured, script
from off_grid import write_off_grid
from quantization import calibration_samples, difference, nll, originals, perplexity

from radquant import environments
from radquant.files import read_json, write_json
from radquant.gguf.writing import write_float

# Ours, and what of llama.cpp's is of the same type.
TYPES = {"q4_0": ("Q4_0",), "q4_1": ("Q4_1",), "q4_k": ("Q4_K_S", "Q4_K_M")}
RECIPES = {
    "rounding": ["--method", "rtn"],
    "AWQ": ["--method", "awq"],
    "GPTQ": ["--method", "gptq"],
    "AWQ + GPTQ": ["--method", "awq", "--rounding", "gptq"],
}
ENVIRONMENT = "llama-cpp"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="of a finished run (%(default)s)")
    add("--work", type=Path, default=Path("benchmarks/gguf-files"), help="default: %(default)s")
    add("--environment", type=Path, help="of llama.cpp, made already")
    add("--models", nargs="+", default=["smollm2-135m", "gemma3-270m"], help="%(default)s")
    add("--types", nargs="+", default=list(TYPES), choices=TYPES, help="default: all")
    add("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES, help="default: all")
    add("--samples", type=int, default=64, help="calibration reports (%(default)s)")
    add("--reports", type=int, default=200, help="held-out reports (%(default)s)")
    add("--on-grid", action="store_true", help="the originals' weights as they are")
    add("--threads", type=int, default=1, help="CPU threads of each quantizer (%(default)s)")
    return parser.parse_args()


def once(record: Path, command: list[str], threads: int, *made: Path) -> dict[str, float]:
    """Run a command unless its record is there, and say what it took."""
    if not record.is_file():
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        write_json(record, measured(command, threads))
    return read_json(record)


def as_checkpoint(file: Path, model: Path) -> Path:
    """A directory that holds a GGUF file beside the original's other files."""
    directory = file.with_suffix("")
    if not directory.is_dir():
        directory.mkdir()
        for path in model.glob("*token*.json"):
            shutil.copyfile(path, directory / path.name)
        config = read_json(model / "config.json")
        said = {"quantization_config": {"quant_method": "gguf", "file": "model.gguf"}}
        write_json(directory / "config.json", config | said)
        file.rename(directory / "model.gguf")
    return directory


def compare(
    name: str, model: Path, work: Path, python: Path, args: argparse.Namespace
) -> list[str]:
    """The table of one model."""
    work.mkdir(parents=True, exist_ok=True)
    samples, held = calibration_samples(model, work, args), args.work / "held.csv"
    plain, importance = work / "plain.gguf", work / "importance.dat"
    if not plain.is_file():
        write_float(model, plain, "f32")
    given = ["--model", model, "--calibration", samples]
    command = script("importance_matrix.py", *given, "--output", importance)
    once(work / "importance.json", command, args.threads, importance)
    original = nll(model, model, held, work / "original.npy")
    lines = [
        f"{name}: {read_json(work / 'samples.json')['tokens']} calibration tokens, "
        f"{original.shape[1]} held-out reports of {original[1].sum():.0f} tokens; original "
        f"{perplexity(original):.2f}",
        "",
        "| type | by | perplexity | nats/token over the original (95 %) | bytes | CPU |",
        "|---|---|---:|---:|---:|---:|",
    ]

    def add(kind: str, maker: str, checkpoint: Path, used: dict[str, float]) -> np.ndarray:
        found = nll(checkpoint, model, held, checkpoint.with_name(checkpoint.name + ".npy"))
        size = (checkpoint / "model.gguf").stat().st_size
        cells = [kind, maker, f"{perplexity(found):.2f}", difference(found, original)]
        cells += [f"{size:,}", f"{used['cpu_seconds']:.0f} s"]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
        return found

    for kind in args.types:
        for theirs in TYPES[kind]:
            for weighed in (False, True):
                file = work / f"llama-cpp-{theirs}{'-imatrix' * weighed}.gguf"
                quantizer = REPOSITORY / "benchmarks" / "quantize_llama_cpp.py"
                command = [str(python), str(quantizer), str(plain), str(file), "--type", theirs]
                command += ["--importance", str(importance)] * weighed
                record = file.with_suffix(".json")
                used = once(record, command, args.threads, file, file.with_suffix(""))
                maker = "llama.cpp, importance matrix" if weighed else "llama.cpp"
                add(theirs, maker, as_checkpoint(file, model), used)
        for recipe in args.recipes:
            output = work / f"{kind}-{recipe}".lower().replace(" + ", "-")
            options = [*given, "--type", kind, "--output", output, "--threads", args.threads]
            command = script("quantize.py", *options, *RECIPES[recipe])
            record = output.with_name(output.name + ".json")
            used = once(record, command, args.threads, output)
            add(kind, f"radquant, {recipe}", output, used)
    return lines


def main() -> None:
    args = parse_arguments()
    place = args.environment or args.results / "environments" / ENVIRONMENT
    if args.environment is None:
        environments.build(REPOSITORY / "envs" / f"{ENVIRONMENT}.txt", place)
    tables = []
    for name, original in originals(args):
        model, label = original, name
        if not args.on_grid:
            model, label = args.work / f"{name}-off-grid", f"{name}, off its grid"
            if not model.is_dir():
                write_off_grid(original, model)
        table = compare(
            label, model, args.work / f"{model.name}-files", place / "bin" / "python", args
        )
        tables.append("\n".join(table))
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
