"""The section of the report on the paired differences from the original."""

from collections.abc import Mapping
from typing import Any

from radquant.reporting.formatting import (
    DASH,
    bullets,
    change,
    coverage,
    escape,
    interval,
    number,
    perplexity,
    points,
    probability,
    prose,
    ratio,
    share,
    table,
    wide_table,
)
from radquant.reporting.patients import patients_sentence
from radquant.reporting.quality_section import of_all
from radquant.scoring.metrics.columns import PRIMARY, tested
from radquant.settings.run import ORIGINAL
from radquant.settings.scoring import OF_ORIGINAL

Summary = Mapping[str, Any]
EXPLORATORY = " (exploratory)"
MOST_RATIO = 10_000  # of two perplexities, written out


def differences_section(summary: Summary) -> str:
    quality = summary["quality"]
    parts = ["## Is the difference real?"]
    header = [
        *("precision", "level", "verdict", "difference", coverage(quality), "Holm p"),
        *("reports to settle", "reports that differ", "p", "non-inf. p", "equiv. p", "detectable"),
    ]
    rows = []
    for column in tested():
        for name, row in quality["differences"][column.name].items():
            rows.append(
                [
                    escape(name),
                    column.label + ("" if column.name == PRIMARY else EXPLORATORY),
                    row["state"],
                    change(row["mean"]),
                    interval(row["interval"]),
                    probability(row["p_holm"]),
                    _settle(row["reports_to_settle"]),
                    number(row["changed"], 0),
                    probability(row["p"]),
                    probability(row["noninferiority_p_holm"]),
                    probability(row["equivalence_p_holm"]),
                    number(row["detectable"]),
                ]
            )
    if rows:
        parts += [
            prose(
                f"Precision minus original, paired over the same {quality['reports']} reports, in "
                f"{quality['measure']}. The combined level is primary: the verdict goes by it. The "
                "others are exploratory.",
                patients_sentence(quality["patients"]),
                _unusable(quality),
            ),
            wide_table(header, rows, left=3, keys=2),
            bullets(*_difference_notes(quality)),
            _likelihood_table(quality),
            bullets(*_likelihood_notes(quality)),
        ]
    parts += ["Original minus baseline, combined level:", _baseline_table(quality)]
    return "\n\n".join(parts)


def _settle(needed: Summary | None) -> str:
    if needed is None:
        return DASH
    low, high = number(needed["low"], 0), number(needed["high"], 0)
    return low if low == high else f"{low} to {high}"


def _unusable(quality: Summary) -> str:
    """Say how many outputs are missing or failed, and that they are counted."""
    flags = quality["outputs"][ORIGINAL]["flags"]
    empty, cut = flags["empty"]["reports"], flags["cut off"]["reports"]
    return (
        f"No report is left out: every precision wrote all {quality['reports']:,}. An empty output "
        f"scores 0, and one that was cut off scores what it has. Of the original's, {empty:,} are "
        f"empty and {cut:,} cut off."
    )


def _likelihood_table(quality: Summary) -> str:
    header = ["precision", "perplexity", "ratio", "nats/token", coverage(quality), "p", "Holm p"]
    rows = [
        [
            escape(name),
            perplexity(quality["systems"][name]["perplexity"]),
            times(row["perplexity_ratio"]),
            change(row["mean"]),
            interval(row["interval"]),
            probability(row["p"]),
            probability(row["p_holm"]),
        ]
        for name, row in quality["likelihood_differences"].items()
    ]
    original = perplexity(quality["systems"][ORIGINAL]["perplexity"])
    lead = prose(
        f"The references' negative log-likelihood{of_all(quality)}, pooled: all nats ÷ all tokens. "
        f"Above 0 is worse than the original, whose perplexity is {original}:"
    )
    return "\n\n".join([lead, table(header, rows)])


def times(value: float) -> str:
    return ratio(value) if value < MOST_RATIO else f"{value:.2e}×"


def _difference_notes(quality: Summary) -> list[str]:
    settings = quality["settings"]
    unit = "patient" if quality["patients"] else "report"
    one_sided = (1 - settings["confidence"]) / 2
    return [
        margin_sentence(quality),
        f"Interval: bootstrap of the mean difference by {unit}, of at least "
        f"{settings['resamples']:,} resamples. More are drawn where its ends still move in the "
        "third decimal. Student's t is taken where that reaches further. Where so few reports "
        "differ that a rare large loss could be unseen, Gaffke's bound, which is named. It is not "
        "corrected for the number of precisions.",
        f"p: two-sided sign-flip test by {unit}. All flips are counted where there are no more "
        f"than {settings['resamples']:,}, else as many are drawn.",
        "Holm: corrected for the number of precisions, level by level; the p-values of "
        "non-inferiority and equivalence are shown after it.",
        f"Non-inf. p, one-sided: below {one_sided:g} the loss is smaller than the margin. Equiv. "
        "p: the same on both sides. Both allow for a rare large loss that so few reports would not "
        "show; – where the original scores no more than the margin.",
        "Detectable: the smallest true difference that this many reports would show with "
        f"{share(settings['power'])} power, before Holm. Reports to settle: how many would show, "
        "with that power and after Holm, whether the loss exceeds the margin. It is a range, since "
        "the spread is itself an estimate.",
        "*Not settled* does not mean that there is no difference. *Combined* can exceed "
        "*entities*: by the package's definition it counts an entity once for each of its "
        "relations.",
    ]


def _likelihood_notes(quality: Summary) -> list[str]:
    unit = "patient" if quality["patients"] else "report"
    return [
        "e to the power of nats/token is the ratio of the two perplexities. Interval and p are of "
        f"the pooled figure, by {unit}. The token that ends a report is not scored: what is asked "
        "is how likely its text is."
    ]


def margin_sentence(quality: Summary) -> str:
    """Say what the margin is, and who argued it."""
    settings = quality["settings"]
    own = ""
    if settings.get("margin_of") == OF_ORIGINAL:
        own = f", {100 * settings['margin']:g} % of the original's score"
    reason = settings.get("margin_reason")
    why = (
        f"The configuration's reason: {escape(reason)}"
        if reason
        else "Nobody argued it: `statistics: margin_reason` is empty."
    )
    return f"Margin: a loss of up to {points(quality['margin'])}{own} counts as none. {why}"


def _baseline_table(quality: Summary) -> str:
    header = ["baseline", "difference", coverage(quality), "p"]
    rows = [
        [name, change(row["mean"]), interval(row["interval"]), probability(row["p"])]
        for name, row in quality["baseline_differences"].items()
    ]
    return table(header, rows)
