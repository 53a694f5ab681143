"""Number formats by the perplexity that each leaves: the table at the top of docs/quantization.md.

All get the same model and calibration tokens. Perplexity is that of reports that no calibration
saw. What a checkpoint says of activations is rounded, too, simulated on a CPU. Reports are divided
and evaluated by benchmarks/quantization.py; what was measured already is not measured again.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from measuring import measured, script
from quantization import calibration_samples, difference, divide_reports, nll, perplexity

from radquant.files import read_json, write_json
from radquant.settings.precision import kv_cache_of

DYNAMIC_FP8 = {"type": "fp8"}
STATIC_FP8 = {"type": "fp8", "granularity": "tensor", "range": "static"}
MXFP4, NVFP4 = {"type": "mxfp4"}, {"type": "nvfp4", "range": "static"}
INT4 = ["--bits", "4", "--group-size", "64"]
CACHE = {"type": "fp8", "granularity": "tensor"}
# name, options of quantize.py, activations that weights are fitted to and the checkpoint says.
RUNS: list[tuple[str, list[str], dict[str, str] | None]] = [
    *(
        (f"{kind} {method}", ["--method", method, *options], None)
        for method in ("rtn", "gptq", "awq")
        for kind, options in (
            ("fp8", ["--type", "fp8"]),
            ("int8", ["--bits", "8", "--group-size", "-1", "--symmetric"]),
            ("nvfp4", ["--type", "nvfp4"]),
            ("mxfp4", ["--type", "mxfp4"]),
            ("int4", INT4),
        )
        if method == "rtn" or kind not in ("fp8", "int8")
    ),
    *(
        (f"{kind['type']} {name} {method}", ["--method", method, "--type", kind["type"]], kind)
        for method, kind, name in (
            ("rtn", DYNAMIC_FP8, "activations"),
            ("rtn", STATIC_FP8, "static activations"),
            ("rtn", NVFP4, "activations"),
            ("rtn", MXFP4, "activations"),
            ("gptq", NVFP4, "activations"),
            ("gptq", MXFP4, "activations"),
        )
    ),
]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="of a finished run (%(default)s)")
    add("--work", type=Path, default=Path("benchmarks/formats"), help="default: %(default)s")
    add("--model", type=Path, help="another model (that of the run)")
    add("--samples", type=int, default=64, help="calibration reports (%(default)s)")
    add("--reports", type=int, default=200, help="held-out reports (%(default)s)")
    add("--threads", type=int, default=1, help="default: %(default)s")
    add("--only", nargs="*", metavar="NAME", help="some of the formats")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    model = args.model or args.results / "models" / "original"
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    divide_reports(args.results, args.work, args.reports)
    samples, held = calibration_samples(model, args.work, args), args.work / "held.csv"
    original = nll(model, model, held, args.work / "original.npy")
    print(
        f"{read_json(args.work / 'samples.json')['tokens']} calibration tokens, "
        f"{original.shape[1]} held-out reports of {original[1].sum():.0f} tokens\n\n"
        "| format | perplexity | nats/token over the original (95 %) | CPU | size |\n"
        "|---|---:|---:|---:|---:|\n"
        f"| original | {perplexity(original):.2f} | | | |",
        flush=True,
    )
    cached = nll(model, model, held, args.work / "cache.npy", kv_cache_of(CACHE))
    print(f"| fp8 cache | {perplexity(cached):.2f} | {difference(cached, original)} | | |")
    for name, options, activations in RUNS:
        if args.only and not any(each in name for each in args.only):
            continue
        output = args.work / name.replace(" ", "-")
        record = output.with_suffix(".json")
        if not record.is_file():
            common = ["--model", model, "--calibration", samples, "--output", output]
            common += ["--threads", args.threads, "--format", "compressed-tensors"]
            if activations is not None:
                common += ["--activations", json.dumps(activations)]
            used = measured(script("quantize.py", *common, *options), args.threads)
            size = sum(file.stat().st_size for file in output.glob("*.safetensors"))
            write_json(record, {**used, "size": size})
        used = read_json(record)
        found = nll(output, model, held, output.with_suffix(".npy"))
        print(
            f"| {name} | {perplexity(found):.2f} | {difference(found, original)} "
            f"| {used['cpu_seconds']:.0f} s | {used['size'] / 1e6:.0f} MB |",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
