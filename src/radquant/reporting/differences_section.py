"""The section of the report on the paired differences from the original."""

from collections.abc import Mapping
from typing import Any

from radquant.reporting.collect import ORIGINAL
from radquant.reporting.formatting import (
    bullets,
    change,
    coverage,
    escape,
    interval,
    number,
    perplexity,
    probability,
    prose,
    share,
    table,
)
from radquant.reporting.quality_section import of_all
from radquant.scoring.metrics.columns import tested

Summary = Mapping[str, Any]


def differences_section(summary: Summary) -> str:
    quality = summary["quality"]
    settings = quality["settings"]
    parts = ["## Is the difference real?"]
    header = [
        *("level", "precision", "difference", coverage(quality), "p", "Holm p"),
        *("detectable", f"n for ±{number(settings['margin'])}", "equiv. p", "verdict"),
    ]
    rows = []
    for column in tested():
        for name, row in quality["differences"][column.name].items():
            rows.append(
                [
                    column.label,
                    escape(name),
                    change(row["mean"]),
                    interval(row["interval"]),
                    probability(row["p"]),
                    probability(row["p_holm"]),
                    number(row["detectable"]),
                    number(row["pairs_to_settle"], 0),
                    probability(row["equivalence_p_holm"]),
                    row["state"],
                ]
            )
    if rows:
        parts += [
            prose(
                f"Precision minus original, paired over the same {quality['reports']} reports, in "
                f"{quality['measure']}:"
            ),
            table(header, rows, left=2),
            _likelihood_table(quality),
            bullets(*_difference_notes(settings)),
        ]
    parts += ["Original minus baseline, combined level:", _baseline_table(quality)]
    return "\n\n".join(parts)


def _likelihood_table(quality: Summary) -> str:
    header = [
        *(
            "precision",
            "perplexity",
            "nats/token",
            coverage(quality),
            "p",
            "Holm p",
            "detectable",
        ),
    ]
    rows = [
        [
            escape(name),
            perplexity(quality["systems"][name]["perplexity"]),
            change(row["mean"]),
            interval(row["interval"]),
            probability(row["p"]),
            probability(row["p_holm"]),
            number(row["detectable"]),
        ]
        for name, row in quality["likelihood_differences"].items()
    ]
    original = perplexity(quality["systems"][ORIGINAL]["perplexity"])
    lead = prose(
        f"The same for the references' negative log-likelihood{of_all(quality)}, per report and "
        f"token: above 0 is worse than the original, whose perplexity is {original}:"
    )
    return "\n\n".join([lead, table(header, rows)])


def _difference_notes(settings: Summary) -> list[str]:
    return [
        f"Interval: bootstrap of the mean difference, {settings['resamples']:,} resamples, BCa "
        "unless another method is named, or Student's t where that reaches further. p: two-sided "
        "sign-flip permutation test with as many flips. Holm: corrected for the number of "
        "precisions, level by level.",
        f"Detectable: the smallest true difference that this many reports would show with "
        f"{share(settings['power'])} power, before Holm's correction; n for "
        f"±{number(settings['margin'])}: how many reports would show either a difference of the "
        "margin or, where there is none, equivalence within it.",
        f"Equiv. p, for equivalence within ±{number(settings['margin'])}: two one-sided t tests, "
        "Holm-corrected. *Cannot tell* means neither a difference nor equivalence was shown: it "
        "does not mean that there is none.",
    ]


def _baseline_table(quality: Summary) -> str:
    header = ["baseline", "difference", coverage(quality), "p"]
    rows = [
        [name, change(row["mean"]), interval(row["interval"]), probability(row["p"])]
        for name, row in quality["baseline_differences"].items()
    ]
    return table(header, rows)
