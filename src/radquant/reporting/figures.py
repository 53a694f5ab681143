"""The report's figures as SVG, drawn from the summary alone; equal summaries give equal files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from radquant.reporting.clinical_changes import ADDING, LOSING
from radquant.reporting.drawing import (
    BAND,
    BLACK,
    GREY,
    STYLE,
    WIDTH,
    add_legend,
    from_zero,
    legend_height,
    look,
    marks,
    origin,
    save,
)
from radquant.reporting.formatting import MINUS, UNIT, change, coverage, points
from radquant.reporting.speed import BUSY
from radquant.scoring.metrics.columns import levels, primary
from radquant.settings.run import BASELINES, ORIGINAL

ORIGIN = "The star at 0 is the original."
# In margins: the least loss that gets a second panel, and how far that panel reaches.
FAR, NEAR = 8, 4
MOST_FLIPPED = 12  # findings in the figure; summary.json has all


class Drawn(NamedTuple):
    """A figure: what draws it, what it shows in few words, and how to read it."""

    draw: Callable[[], Figure]
    description: str
    caption: str


def figures(summary: Mapping[str, Any]) -> dict[str, Drawn]:
    """Return the report's figures by name; that for the head of a department comes first."""
    quality = summary["quality"]
    several = len(quality["precisions"]) > 1
    found = {"tradeoff": _tradeoff(summary)}
    if several:
        found = {
            "loss": _loss(summary),
            "differences": Drawn(
                lambda: difference_figure(quality),
                "Paired difference of each precision from the original model, with intervals",
                f"{ORIGIN} Each mark is a precision's mean difference in {quality['measure']}, "
                f"each line its {coverage(quality)}. Grey: within the margin. Left of 0 is "
                "worse. Only the combined level was chosen beforehand.",
            ),
            **found,
        }
    if several and _flipped(quality):
        found["flips"] = Drawn(
            lambda: flips_figure(quality),
            "Findings lost or denied, and findings added, by finding and precision",
            f"{ORIGIN} Bars to the left count reports in which a precision loses or denies a "
            "finding that the original states. Bars to the right count reports in which it adds "
            f"one. Shown are the {MOST_FLIPPED} findings that change most often, or fewer.",
        )
    if several:
        found["likelihood"] = Drawn(
            lambda: likelihood_figure(quality),
            "Change of the reference reports' negative log-likelihood, with intervals",
            f"{ORIGIN} Each mark is the mean change of a precision, each line its "
            f"{coverage(quality)}. Right of 0, the radiologists' texts are less likely than to the "
            "original.",
        )
    return found


def _loss(summary: Mapping[str, Any]) -> Drawn:
    quality = summary["quality"]
    _, where = weights(summary)
    near = " The right panel has the middle of the left one, enlarged." if _far(quality) else ""
    unfit = "" if quality["fitness"]["fit"] else " The run is unfit to answer: no mark is a result."
    return Drawn(
        lambda: loss_figure(summary),
        f"Loss or gain of each precision against the original, by the size of its weights {where}",
        f"{ORIGIN} Below it a precision's reports are worse; further left its weights take less. "
        f"Each line is a {coverage(quality)}. Shaded: a loss up to the margin of "
        f"{points(quality['margin'])}, which counts as none. Where a line goes on below the "
        f"shading, a larger loss is not excluded.{near}{unfit}",
    )


def _tradeoff(summary: Mapping[str, Any]) -> Drawn:
    quality = summary["quality"]
    timed = " and seconds per report" if _seconds(summary["performance"]) else ""
    _, where = weights(summary)
    return Drawn(
        lambda: tradeoff_figure(summary),
        f"Combined {quality['measure']} of each precision against the size of its weights {where}"
        f"{timed}",
        f"The star is the original. Each mark is a precision's combined {quality['measure']}, each "
        f"line its {coverage(quality)}. Broken lines are the scores of texts that need no model. "
        "Precisions of the same size stand above each other.",
    )


def write_figures(summary: Mapping[str, Any], directory: str | Path) -> None:
    for name, drawn in figures(summary).items():
        save(drawn.draw(), Path(directory) / f"{name}.svg")


def difference_figure(quality: Mapping[str, Any]) -> Figure:
    """Draw a forest plot: one panel for each level of F1, one line for each precision."""
    names = [name for name in quality["precisions"] if name != ORIGINAL]
    with matplotlib.rc_context(STYLE):
        size = (WIDTH, 1.7 + 0.4 * len(names))
        shared = {"sharex": True, "sharey": True, "squeeze": False}
        figure, (axes,) = plt.subplots(1, len(levels()), figsize=size, **shared)
        for axis, level in zip(axes, levels(), strict=True):
            rows = [quality["differences"][level.name][name] for name in names]
            margin = rows[0]["margin"]
            axis.axvspan(-margin, margin, color=BAND, linewidth=0)
            _forest(axis, rows, names)
            kind = "primary" if level == primary() else "exploratory"
            axis.set_title(f"{level.heading}: {kind}", pad=10)
            axis.tick_params(axis="x", labelsize=8.5)
        axes[len(axes) // 2].set_xlabel(
            f"difference in {quality['measure']} from the original ({coverage(quality)}; "
            f"grey band: ±margin, {quality['margin']:.3g} at the combined level)"
        )
        figure.tight_layout()
    return figure


def likelihood_figure(quality: Mapping[str, Any]) -> Figure:
    """Draw the change of the references' NLL, one line for each precision."""
    names = [name for name in quality["precisions"] if name != ORIGINAL]
    rows = [quality["likelihood_differences"][name] for name in names]
    with matplotlib.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(WIDTH, 1.6 + 0.35 * len(names)))
        _forest(axis, rows, names)
        for y, row in enumerate(rows):
            axis.annotate(
                change(row["mean"]),
                (row["mean"], y),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                # The line at 0 ends at a number, and does not cross it.
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
        axis.set_ylim(len(names) - 0.4, -0.8)
        scale = ""
        if max(row["interval"]["high"] for row in rows) > 3:
            # Without this scale, one ruined precision would squeeze all others into a line at 0.
            axis.set_xscale("symlog", linthresh=1)
            ticks = [-1, -0.5, 0, 0.25, 0.5, 1, 2, 5, 10, 20, 50]
            low, high = axis.get_xlim()
            shown = [tick for tick in ticks if low <= tick <= high]
            axis.set_xticks(shown, [f"{tick:g}".replace("-", MINUS) for tick in shown], minor=False)
            axis.set_xticks([], minor=True)
            scale = "; logarithmic above 1"
        axis.set_xlabel(
            "change of the references' negative log-likelihood, nats per token "
            f"(right of 0 is worse{scale})"
        )
        figure.tight_layout()
    return figure


def _forest(axis: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Draw one mean with its interval per row, the first row on top."""
    origin(axis)
    for y, row in enumerate(rows):
        colour, marker, _ = look(y + 1)
        low, high = row["interval"]["low"], row["interval"]["high"]
        axis.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
        axis.plot(row["mean"], y, marker=marker, color=colour, markersize=7)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="#EEEEEE", linewidth=0.8)
    axis.set_axisbelow(True)


def weights(summary: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Return what the weights of each precision take, MB, and where: in memory, or on disk.

    Of a format without a kernel here, memory says nothing.
    """
    systems = summary["performance"]["systems"]
    names = summary["quality"]["precisions"]
    known = all(systems[name]["weight_bytes"] for name in names)
    key, where = ("weight_bytes", "in memory") if known else ("disk_bytes", "on disk")
    return {name: systems[name][key] / 1e6 for name in names}, where


def loss_figure(summary: Mapping[str, Any]) -> Figure:
    """Draw what is lost of the reports' quality against memory, for who decides by one picture.

    A loss may be so large that the margin could not be seen beside it. A second panel then shows
    what is near the original, on a scale of its own.
    """
    quality = summary["quality"]
    rows = quality["differences"][quality["settings"]["primary"]]
    names, (_, where) = quality["precisions"], weights(summary)
    words = {name: f"{name}: {rows[name]['state']}" if name in rows else name for name in names}
    with matplotlib.rc_context(STYLE):
        size = (WIDTH, 3.6 + legend_height(list(words.values())))
        panels = 2 if _far(quality) else 1
        figure, (axes,) = plt.subplots(1, panels, figsize=size, squeeze=False, sharex=True)
        for axis in axes:
            _losses(axis, summary)
        if panels == 2:
            near = NEAR * quality["margin"]
            axes[0].set_title("all precisions")
            axes[1].set_title("the same, near the original")
            axes[1].set_ylim(-near, near)
        axes[0].set_ylabel(f"change of the reports' quality,\n{UNIT.strip()} (below 0: worse)")
        figure.supxlabel(
            f"size of the model's weights {where}, MB (further left: smaller)", fontsize=10
        )
        add_legend(figure, axes[0], names, words)
    return figure


def _far(quality: Mapping[str, Any]) -> bool:
    rows = quality["differences"][quality["settings"]["primary"]].values()
    ends = [abs(row["interval"][end]) for row in rows for end in ("low", "high")]
    return max(ends) > FAR * quality["margin"]


def _losses(axis: Axes, summary: Mapping[str, Any]) -> None:
    """Draw each precision's difference over the size of its weights; the original's is 0."""
    quality, (sizes, _) = summary["quality"], weights(summary)
    rows, margin = quality["differences"][quality["settings"]["primary"]], quality["margin"]
    axis.axhspan(-margin, 0, color=BAND, linewidth=0)
    axis.axhline(-margin, color=GREY, linewidth=1, linestyle="--")
    axis.axhline(0, color=BLACK, linewidth=1)
    values = {name: rows[name]["mean"] if name in rows else 0.0 for name in sizes}
    ends = {name: rows[name]["interval"] if name in rows else None for name in sizes}
    marks(axis, sizes, values, ends, quality["precisions"])
    from_zero(axis, sizes)
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, -1.5 * margin), max(high, 0.75 * margin))
    axis.yaxis.set_major_formatter(lambda value, _: change(value, 3))


def tradeoff_figure(summary: Mapping[str, Any]) -> Figure:
    """Draw quality against memory and, where it was timed, speed; baselines as horizontal lines."""
    quality, seconds = summary["quality"], _seconds(summary["performance"])
    with matplotlib.rc_context(STYLE):
        panels = 2 if seconds else 1
        names = [*quality["precisions"], *BASELINES]
        size = (WIDTH, 3.4 + legend_height(names))
        shared: dict[str, Any] = {"figsize": size, "sharey": True, "squeeze": False}
        figure, (axes,) = plt.subplots(1, panels, **shared)
        sizes, where = weights(summary)
        _scatter(axes[0], sizes, quality)
        axes[0].set_ylabel(f"combined {quality['measure']}")
        axes[0].set_xlabel(f"weights {where}, MB (left is smaller)")
        if seconds:
            _scatter(axes[1], seconds, quality)
            axes[1].set_xlabel("seconds per report, as timed (left is faster)")
        add_legend(figure, axes[0], names)
    return figure


def _seconds(performance: Mapping[str, Any]) -> dict[str, float]:
    """Seconds per report of what was timed on the original's engine; {} where nothing was.

    Another engine's speed is no effect of quantizing, and that of a busy machine is none at all.
    """
    if performance["speed"] is None:
        return {}
    found = {}
    for name, row in performance["speed"]["systems"].items():
        ratio = row["ratios"]["seconds_per_report"]
        if row["seconds_per_report"] and (name == ORIGINAL or (ratio and ratio["state"] != BUSY)):
            found[name] = row["seconds_per_report"]["median"]
    return found


def _flipped(quality: Mapping[str, Any]) -> list[str]:
    """Return the findings that change in some report, those that change most often first."""
    counts = {
        finding: sum(sum(kinds.values()) for kinds in row["flips"].values())
        for finding, row in quality["findings"]["by_finding"].items()
    }
    return sorted((name for name, count in counts.items() if count), key=lambda x: -counts[x])


def flips_figure(quality: Mapping[str, Any]) -> Figure:
    """Draw, by finding, how often each precision leaves it out or denies it, and adds it."""
    names = [name for name in quality["precisions"] if name != ORIGINAL]
    findings = _flipped(quality)[:MOST_FLIPPED]
    rows = [quality["findings"]["by_finding"][finding]["flips"] for finding in findings]
    height = 0.8 / len(names)
    with matplotlib.rc_context(STYLE):
        bars = 1.2 + 0.11 * len(findings) * (len(names) + 1)
        figure, axis = plt.subplots(figsize=(WIDTH, bars + legend_height(names)))
        for index, name in enumerate(names):
            colour, _, hatch = look(index + 1)
            drawn = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            places = [y + (index - (len(names) - 1) / 2) * height for y in range(len(findings))]
            for kinds, sign, label in ((LOSING, -1, name), (ADDING, 1, None)):
                counts = [sign * sum(row[name][kind] for kind in kinds) for row in rows]
                axis.barh(places, counts, height * 0.9, label=label, **drawn)
        origin(axis)
        most = max(1, *(abs(edge) for edge in axis.get_xlim()))
        axis.set_xlim(-most, most)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axis.set_yticks(range(len(findings)), findings)
        axis.set_ylim(len(findings) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("◄ lost or denied     reports     added (invented or asserted) ►")
        axis.grid(axis="x", color="#EEEEEE", linewidth=0.8)
        axis.set_axisbelow(True)
        add_legend(figure, axis, names)
    return figure


def _scatter(axis: Axes, positions: Mapping[str, float], quality: Mapping[str, Any]) -> None:
    """Draw the combined F1 of each precision in `positions` with its interval, and baselines."""
    primary = quality["settings"]["primary"]
    rows = {name: quality["systems"][name] for name in positions}
    marks(
        axis,
        positions,
        {name: row[primary] for name, row in rows.items()},
        {name: row[f"{primary}_interval"] for name, row in rows.items()},
        quality["precisions"],
    )
    for name, style in zip(BASELINES, ("--", ":", "-."), strict=True):
        height = quality["systems"][name][primary]
        axis.axhline(height, color=GREY, linestyle=style, linewidth=1.5, label=name)
    from_zero(axis, positions)
