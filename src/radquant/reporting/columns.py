"""What the columns of the report's tables mean, for their heads on the page.

A head is looked up in its section first, then in ANYWHERE. One sentence or two, in words that need
no other page; docs/report.md has the definitions in full.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from radquant.reporting import words
from radquant.reporting.formatting import DASH, coverage, points
from radquant.scoring.changes import KINDS
from radquant.scoring.metrics.columns import metrics, of_table
from radquant.settings.run import BASELINES, ORIGINAL

Meanings = dict[str, dict[str, str]]
ANYWHERE = ""
PLAIN: Meanings = {
    ANYWHERE: {
        "precision": "The weights of one checkpoint, and what is rounded while the model runs.",
        "checkpoint": "A set of stored weights. Several precisions may share one.",
        "perplexity": "How surprised the model is by the radiologists' texts. Less is better.",
        "p": "How often chance alone gives a difference as large. Small is strong evidence.",
        "Holm p": "p, corrected for the number of precisions compared.",
        "p (Holm)": "p, corrected for the number of precisions compared.",
        "ratio": "The value to its left, divided by the original's. 1.00× is the original.",
        "difference": "The precision's value minus the original's, over the same reports.",
        "reports": "How many reports this row is about.",
        "patients": "How many patients these reports come from.",
        "original": "The value of the original model, in which nothing was rounded.",
        "peak memory": "The most memory that one process took, Python and libraries included.",
        "stored prefix": "Tokens whose keys and values the checkpoint stores, and puts first.",
        "transform": "What was done to the weights before they were rounded.",
    },
    "Verdict": {
        "verdict": "Worse, no worse than the margin, better, not settled, or unfit.",
        "difference in F1 points": "Mean F1 minus the original's. Below 0 is worse.",
        "lost or denied findings": "Reports in which a definite finding of the original is missing "
        "or denied, of all reports in which it states one.",
        "perplexity, ratio": "Perplexity divided by the original's. Above 1.00× the radiologists' "
        "texts are less likely.",
    },
    "Quality": {
        "system": "The original, a precision, or a baseline that needs no model.",
        "ruler": "A way of measuring how close an output is to the reference.",
        "group": "What the ruler reads: words, findings, labels, errors, or a model's judgement.",
    },
    "Size": {
        "s/report": "Seconds for one report: the median of the rounds, the least and the most.",
        "against original": "The speed to its left; the original's is 1.00×. Below it is slower.",
        "prompt tokens/s": "Tokens of the prompts read in a second.",
        "decode tokens/s": "Tokens written in a second, behind the first of each report.",
        "CPU s/report": "Seconds of all cores together for one report.",
        "weights in memory": "What the loaded weights take.",
        "on disk": "What the files of the weights take.",
        "device memory": "The most memory that was taken on the GPU.",
        "wall s": "Seconds by the clock for all reports.",
        "CPU s": "Seconds of all cores together for all reports.",
        "output tokens": "Tokens that were written for all reports.",
        "s per batch": "Seconds from a batch's start until its last token, on average.",
    },
    "Is the difference real?": {
        "level": "The column of scores that is compared. Combined is the primary one.",
        "verdict": "One of five words. It needs both the corrected test and the interval.",
        "reports to settle": "How many reports would show whether the loss exceeds the margin.",
        "reports that differ": "In how many reports the two scores are not the same.",
        "non-inf. p": "Small: the loss is smaller than the margin. Holm-corrected.",
        "equiv. p": "Small: the difference lies within the margin on both sides. Holm-corrected.",
        "detectable": "The smallest true difference that this many reports would show.",
        "nats/token": "The change of the references' negative log-likelihood. Above 0 is worse.",
        "baseline": "Texts that need no model. The row compares the original with them.",
    },
    "What readers said": {
        "text of": "The precision that wrote the text, or the radiologist. Readers did not see it.",
        "ratings": "How many ratings there are.",
        "mean": "Mean acceptability, from 1 to 5. 5 is best.",
        "acceptable": "Share of ratings with an acceptability of 4 or 5.",
        "harmful": "Share of ratings with moderate or severe harm.",
        "any": "Share of ratings that name any error.",
        "pairs": "Ratings of this text and of the original's by the same reader.",
        "reports that differ": "Reports in which the two texts were rated otherwise.",
        "reader": "Who rated, or what most of the readers said.",
        "this text": "Share among the ratings of this text.",
        "original only": "Pairs in which it is said of the original's text alone.",
        "this text only": "Pairs in which it is said of this text alone.",
        "Krippendorff's alpha": "What readers agree on: 1 is full agreement, 0 is chance.",
        "texts": "How many texts were rated by more than one reader.",
        "alpha": "Agreement of all readers: 1 is full agreement, 0 is chance.",
        "readers": "Two readers who rated the same texts.",
        "rated": "What was rated: acceptability or harm.",
        "kappa, quadratic": "Agreement of the two. A large disagreement counts by its square.",
        "kappa, linear": "Agreement of the two. A disagreement counts by its size.",
        "finished": "Whether the reader rated all texts.",
        "radiologist's text": "How the radiologist's text was shown to this reader.",
        "median s a text": "Seconds that the reader spent on a text, as a median.",
        **{str(value): f"Ratings with an acceptability of {value}." for value in range(1, 6)},
    },
    "What changed": {
        "what": "A kind of change against the original's output, or a fault of the output itself.",
        "finding": "What is seen or denied in a report, under one name for all its words.",
        "references": "In how many references the finding is definitely present.",
        "sensitivity": "Of the findings that a reference states, the share in the output, too.",
        "specificity": "Of the findings that a reference does not state, the share that the output "
        "does not state either.",
        **{kind: f"Findings {meaning}." for kind, meaning in KINDS.items()},
    },
    "Data": {
        "step": "A step of cleaning, in their order.",
        "removed": "Reports that the step dropped.",
        "left": "Reports that were left behind it.",
    },
    "Quantization": {
        "method": "How the weights were rounded, and by which program if not by this one.",
        "bits": "Bits of each weight.",
        "group": "How many weights share one scale.",
        "zero point": "Whether the grid may be shifted, so that 0 need not be in its middle.",
        "fitted to activations of": "Rounding of activations that the weights were fitted to.",
        "layers": "How many linear layers were rounded.",
        "wall": "Seconds by the clock that quantizing took.",
        "CPU": "Seconds of all cores together that quantizing took.",
        "peak memory": "The most memory that quantizing took.",
        "weight layers": "Linear layers whose weights are rounded.",
        "activation layers": "Linear layers whose inputs are rounded while the model runs.",
        "activations": "How inputs of linear layers are rounded while the model runs.",
        "KV cache": "How the stored keys and values are rounded.",
        "head": "How the last layer, which chooses the words, is rounded.",
        "kernel": "The program that multiplies by the packed weights.",
    },
    "How to reproduce": {
        "what": "A file or a setting that the run was made from.",
        "sha256": "Its checksum. Equal files have equal checksums.",
    },
}


def meanings(summary: Mapping[str, Any]) -> Meanings:
    """Return {beginning of a section's title: {head of a column: what it means}}."""
    found = {section: dict(heads) for section, heads in PLAIN.items()}
    quality = summary["quality"]
    unit = "patient" if quality["patients"] else "report"
    found[ANYWHERE][coverage(quality)] = (
        f"The range in which the true value lies by this confidence, from resampling by {unit}."
    )
    found[ANYWHERE] |= dict(_precisions(summary)) | _baselines()
    found["Verdict"]["verdict"] += f" The margin is {points(quality['margin'])}."
    found["Quality"] = dict(_metrics()) | found["Quality"]
    names = quality["subgroups"]
    found["Subgroups"] = {name: "Parts of the reports, as configured." for name in names}
    found["Quantization"] |= dict(_errors(summary["quantization"]))
    found["What readers said"] |= dict(_of_readers(summary.get("readers")))
    return found


def _precisions(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, row in summary["performance"]["systems"].items():
        if name != ORIGINAL:
            checkpoint = summary["config"]["precisions"][name]["checkpoint"]
            parts = [f"weights of checkpoint {checkpoint}"]
            for key, what, told in (
                ("activations", "activations", words.activations),
                ("kv_cache", "KV cache", words.kv_cache),
                ("lm_head", "head", words.lm_head),
            ):
                parts += [f"{what} {told(row[key])}"] if told(row[key]) != DASH else []
            yield name, f"Precision {name}: {'; '.join(parts)}."


def _baselines() -> dict[str, str]:
    return dict(
        zip(
            BASELINES,
            (
                "A baseline: the input is repeated as the output.",
                "A baseline: every report gets the one training text that scores best there.",
                "A baseline: the text of the training report whose input is most alike.",
            ),
            strict=True,
        )
    )


def _metrics() -> Iterator[tuple[str, str]]:
    """Each metric's columns, by what their module says."""
    for metric in metrics():
        for column in of_table(metric):
            best = {"more": " More is better.", "less": " Less is better.", "neither": ""}
            what = "Share of reports" if column.kind is bool else "Mean over reports"
            yield (
                column.heading,
                f"{column.label[:1].upper()}{column.label[1:]} "
                f"({metric.ABOUT.citation.removeprefix('none: ')}). {what}.{best[column.better]}",
            )


def _errors(records: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for kind in {kind for record in records.values() for kind in record["errors"]}:
        yield (
            kind.replace("_", " "),
            "Error that rounding made, relative to the size of what is rounded: median of the "
            "layers, and the largest.",
        )


def _of_readers(record: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    for row in (record or {"ratings": {}})["ratings"].values():
        yield from ((harm, f"Ratings that call the harm {harm}.") for harm in row["harm"])
        yield from ((kind, f"Ratings that name this error: {kind}.") for kind in row["errors"])
