"""The report's figures as SVG, drawn from the summary alone; equal summaries give equal files."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from radquant.files import atomic_path
from radquant.reporting.clinical_changes import ADDING, LOSING
from radquant.reporting.formatting import MINUS, change, coverage
from radquant.reporting.speed import BUSY
from radquant.scoring.metrics.columns import levels, primary
from radquant.settings.run import BASELINES, ORIGINAL

STYLE = {
    "svg.hashsalt": "radquant",  # else ids in the SVG are random
    "svg.fonttype": "path",  # looks the same where no such font is installed
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # Opaque, so that dark text stays readable on a page in dark mode.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
# Okabe and Ito's colours, told apart by colour-blind readers; the marker repeats the distinction.
COLOURS = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
HATCHES = ["", "////", "....", "xxxx"]  # of bars, where colours come round again
WIDTH = 9.5  # inches, of every figure
ENTRY, CHARACTER, LINE = 0.6, 0.09, 0.22  # inches, of a legend: a key and a letter's width, a line
GREY = "#767676"
MOST_FLIPPED = 12  # findings in the figure; summary.json has all


def figures(summary: Mapping[str, Any]) -> dict[str, tuple[Callable[[], Figure], str]]:
    """Return, per figure name, the function that draws it and the text that describes it."""
    quality = summary["quality"]
    several = len(quality["precisions"]) > 1
    drawn: dict[str, tuple[Callable[[], Figure], str]] = {}
    if several:
        drawn["differences"] = (
            lambda: difference_figure(quality),
            "Paired difference of each precision from the original model, with intervals",
        )
    drawn["tradeoff"] = (
        lambda: tradeoff_figure(summary),
        f"Combined {quality['measure']} of each precision against memory"
        + (" and seconds per report" if _seconds(summary["performance"]) else ""),
    )
    if several and _flipped(quality):
        drawn["flips"] = (
            lambda: flips_figure(quality),
            "Findings lost or denied, and findings added, by finding and precision",
        )
    if several:
        drawn["likelihood"] = (
            lambda: likelihood_figure(quality),
            "Change of the reference reports' negative log-likelihood, with intervals",
        )
    return drawn


def save(figure: Figure, path: str | Path) -> None:
    """Write `figure` to `path` (.svg or .png) and close it."""
    suffix = Path(path).suffix.removeprefix(".")
    metadata = {"Date": None} if suffix == "svg" else None
    with matplotlib.rc_context(STYLE), atomic_path(path) as part:
        figure.savefig(part, format=suffix, metadata=metadata)
    plt.close(figure)


def write_figures(summary: Mapping[str, Any], directory: str | Path) -> None:
    for name, (draw, _) in figures(summary).items():
        save(draw(), Path(directory) / f"{name}.svg")


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
            axis.axvspan(-margin, margin, color="#DDDDDD", linewidth=0)
            _forest(axis, rows, names)
            kind = "primary" if level == primary() else "exploratory"
            axis.set_title(f"{level.heading}: {kind}")
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
            )
        axis.set_ylim(len(names) - 0.4, -0.8)
        scale = ""
        if max(row["interval"]["high"] for row in rows) > 3:
            # One ruined precision would else squeeze all others into a line at 0.
            axis.set_xscale("symlog", linthresh=1)
            ticks = [-1, -0.5, 0, 0.25, 0.5, 1, 2, 5, 10, 20, 50]
            low, high = axis.get_xlim()
            shown = [tick for tick in ticks if low <= tick <= high]
            axis.set_xticks(shown, [f"{tick:g}".replace("-", MINUS) for tick in shown], minor=False)
            axis.set_xticks([], minor=True)
            scale = "; logarithmic above 1"
        axis.set_xlabel(
            "change of the references' negative log-likelihood, nats per token of them all "
            f"({coverage(quality)}; right of 0 is worse{scale})"
        )
        figure.tight_layout()
    return figure


def _forest(axis: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Draw one mean with its interval per row, the first row on top."""
    axis.axvline(0, color=GREY, linewidth=1)
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


def tradeoff_figure(summary: Mapping[str, Any]) -> Figure:
    """Draw quality against memory and, where it was timed, speed; baselines as horizontal lines."""
    quality, performance = summary["quality"], summary["performance"]
    systems, seconds = performance["systems"], _seconds(performance)
    with matplotlib.rc_context(STYLE):
        panels = 2 if seconds else 1
        names = [*quality["precisions"], *BASELINES]
        size = (WIDTH, 3.4 + legend_height(names))
        shared: dict[str, Any] = {"figsize": size, "sharey": True, "squeeze": False}
        figure, (axes,) = plt.subplots(1, panels, **shared)
        # Of a format without a kernel here, memory says nothing.
        known = all(systems[name]["weight_bytes"] for name in quality["precisions"])
        key, where = ("weight_bytes", "in memory") if known else ("disk_bytes", "on disk")
        weights = {name: systems[name][key] / 1e6 for name in quality["precisions"]}
        _scatter(axes[0], _apart(weights), quality)
        axes[0].set_ylabel(f"combined {quality['measure']}")
        axes[0].set_xlabel(f"weights {where}, MB (equal sizes are drawn side by side)")
        if seconds:
            _scatter(axes[1], seconds, quality)
            axes[1].set_xlabel("seconds per report, as timed (left is faster)")
        add_legend(figure, axes[0], names)
    return figure


def columns_of(names: Sequence[str]) -> int:
    """How many entries of a legend stand in one line."""
    return min(len(names), max(1, int(WIDTH / (ENTRY + CHARACTER * max(map(len, names))))))


def legend_height(names: Sequence[str]) -> float:
    """Of a legend of `names`, inches."""
    return LINE * math.ceil(len(names) / columns_of(names)) + 0.1


def add_legend(figure: Figure, axis: Axes, names: Sequence[str]) -> None:
    """Lay out `figure` with a legend of `names`, which `axis` has as labels, above all panels."""
    handles, labels = axis.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    keys = [found[name] for name in names]
    figure.legend(keys, names, loc="upper center", ncols=columns_of(names), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - legend_height(names) / figure.get_figheight()))


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
        axis.axvline(0, color=GREY, linewidth=1)
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


def _apart(positions: Mapping[str, float]) -> dict[str, float]:
    """Return `positions` with those that would cover each other moved a little to the side."""
    step = 0.025 * max(positions.values())
    groups: dict[int, list[str]] = {}
    for name, x in positions.items():
        groups.setdefault(round(x / step), []).append(name)
    return {
        name: positions[name] + step * (i - (len(group) - 1) / 2)
        for group in groups.values()
        for i, name in enumerate(group)
    }


def _scatter(axis: Axes, positions: Mapping[str, float], quality: Mapping[str, Any]) -> None:
    """Draw the combined F1 of each precision in `positions` with its interval, and baselines."""
    primary = quality["settings"]["primary"]
    for name, x in positions.items():
        row = quality["systems"][name]
        colour, marker, _ = look(quality["precisions"].index(name))
        ends = row[f"{primary}_interval"]
        axis.plot([x, x], [ends["low"], ends["high"]], color=colour, alpha=0.5, linewidth=2)
        axis.plot(x, row[primary], marker, color=colour, markersize=8, label=name)
    for name, style in zip(BASELINES, ("--", ":", "-."), strict=True):
        height = quality["systems"][name][primary]
        axis.axhline(height, color=GREY, linestyle=style, linewidth=1.5, label=name)
    axis.set_xlim(0, 1.1 * max(positions.values()) or 1)
    axis.grid(color="#EEEEEE", linewidth=0.8)
    axis.set_axisbelow(True)


def look(index: int) -> tuple[str, str, str]:
    """Colour, marker and hatch; a colour that comes round again has others of both."""
    again, place = divmod(index, len(COLOURS))
    return COLOURS[place], MARKERS[(place + again) % len(MARKERS)], HATCHES[again % len(HATCHES)]
