"""What all figures share: their style, each precision's colour and mark, legends, and files."""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

from radquant.files import atomic_path

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
# No precision has the original's black star.
BLACK, STAR = "#000000", "*"
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["s", "^", "D", "v", "P", "X"]
HATCHES = ["", "////", "....", "xxxx"]  # of bars, where colours come round again
WIDTH = 9.5  # inches, of every figure
ENTRY, CHARACTER, LINE = 0.6, 0.09, 0.22  # inches, of a legend: a key and a letter's width, a line
GREY = "#767676"
BAND = "#DDDDDD"  # of differences that are within the margin


def save(figure: Figure, path: str | Path) -> None:
    """Write `figure` to `path` (.svg or .png) and close it."""
    suffix = Path(path).suffix.removeprefix(".")
    metadata = {"Date": None} if suffix == "svg" else None
    with matplotlib.rc_context(STYLE), atomic_path(path) as part:
        figure.savefig(part, format=suffix, metadata=metadata)
    plt.close(figure)


def look(index: int) -> tuple[str, str, str]:
    """Colour, marker and hatch of a precision by its place; the original's is 0.

    A colour that comes round again has others of both.
    """
    if index == 0:
        return BLACK, STAR, ""
    again, place = divmod(index - 1, len(COLOURS))
    return COLOURS[place], MARKERS[(place + again) % len(MARKERS)], HATCHES[again % len(HATCHES)]


def origin(axis: Axes) -> None:
    """Draw the original where it is by definition, at 0, with its mark on the upper edge."""
    axis.axvline(0, color=BLACK, linewidth=1)
    place: dict[str, Any] = {"transform": axis.get_xaxis_transform(), "clip_on": False, "zorder": 4}
    axis.plot(0, 1, STAR, color=BLACK, markersize=12, markeredgecolor="white", **place)


def from_zero(axis: Axes, positions: Mapping[str, float]) -> None:
    axis.set_xlim(0, 1.1 * max(positions.values()) or 1)
    axis.grid(color="#EEEEEE", linewidth=0.8)
    axis.set_axisbelow(True)


def marks(
    axis: Axes,
    across: Mapping[str, float],
    values: Mapping[str, float],
    intervals: Mapping[str, Mapping[str, Any] | None],
    precisions: Sequence[str],
) -> None:
    """Draw a mark of each name in `across` at its values, over its interval if it has one.

    Nothing is moved. What stands at one place is drawn one over the other, each smaller than what
    is below it. The longest interval lies lowest.
    """
    lines = {name: ends for name in across if (ends := intervals[name]) is not None}
    longest = sorted(lines, key=lambda name: lines[name]["low"] - lines[name]["high"])
    for depth, name in enumerate(longest):
        wide = 8 - 6 * depth / len(lines)
        around = [Stroke(linewidth=wide + 1.6, foreground="white"), Normal()]
        drawn: dict[str, Any] = {"color": look(precisions.index(name))[0], "linewidth": wide}
        drawn |= {"path_effects": around, "solid_capstyle": "butt"}
        axis.plot([across[name]] * 2, [lines[name]["low"], lines[name]["high"]], **drawn)
    for depth, name in enumerate(across):
        colour, marker, _ = look(precisions.index(name))
        size = (17 if marker == STAR else 13) - 5 * depth / len(across)
        style: dict[str, Any] = {"color": colour, "markersize": size, "markeredgecolor": "white"}
        style |= {"linestyle": "none", "zorder": 3 + depth, "label": name}
        axis.plot(across[name], values[name], marker, **style)


def columns_of(names: Sequence[str]) -> int:
    """How many entries of a legend stand in one line."""
    return min(len(names), max(1, int(WIDTH / (ENTRY + CHARACTER * max(map(len, names))))))


def legend_height(names: Sequence[str]) -> float:
    """Of a legend of `names`, inches."""
    return LINE * math.ceil(len(names) / columns_of(names)) + 0.1


def add_legend(
    figure: Figure, axis: Axes, names: Sequence[str], words: Mapping[str, str] | None = None
) -> None:
    """Lay out `figure` with a legend of `names`, which `axis` has as labels, above all panels.

    words: what is written instead of a name.
    """
    handles, labels = axis.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    keys = [copy(found[name]) for name in names]
    for key in keys:
        if isinstance(key, Line2D) and key.get_marker() not in ("None", ""):
            key.set_markersize(12 if key.get_marker() == STAR else 9)
    told = [words[name] for name in names] if words else list(names)
    figure.legend(keys, told, loc="upper center", ncols=columns_of(told), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - legend_height(told) / figure.get_figheight()))
