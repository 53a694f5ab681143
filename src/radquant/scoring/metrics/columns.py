"""The columns of all registered metrics, and which of them are shown where."""

from typing import Any

from radquant import registry
from radquant.scoring.metrics.kind import Column, Metric, Pair

# The verdict and the examples judge a precision by this column.
PRIMARY = "complete"
# In a file of scores, scores come before truths, and these before counts.
KINDS = (float, bool, int)


def metrics() -> list[Metric]:
    """Return the registered metrics, in the order of the report's columns."""
    return [registry.load_kind(registry.METRICS, name) for name in registry.METRICS]


def columns() -> list[Column]:
    """Return all columns, in the order of a file of scores."""
    return sorted(_all(), key=lambda column: KINDS.index(column.kind))


def measure(pair: Pair) -> dict[str, Any]:
    """Return the numbers of one report, by column."""
    found = {}
    for metric in metrics():
        for column, value in zip(metric.ABOUT.columns, metric.measure(pair), strict=True):
            found[column.name] = column.kind(value)
    return {column.name: found[column.name] for column in columns()}


def primary() -> Column:
    return next(column for column in _all() if column.name == PRIMARY)


def levels() -> list[Column]:
    """Return the primary column and those that its metric has beside it, in its order."""
    own = next(metric.ABOUT.columns for metric in metrics() if primary() in metric.ABOUT.columns)
    return [column for column in own if column in tested()]


def averaged() -> list[Column]:
    """Return the columns whose mean over reports says something of a system."""
    return [column for column in _all() if column.mean]


def tested() -> list[Column]:
    """Return the columns whose paired differences are tested, the primary one first."""
    found = [column for column in averaged() if column.difference]
    return sorted(found, key=lambda column: column.name != PRIMARY)


def compared_between_runs() -> list[Column]:
    return [column for column in averaged() if column.runs]


def of_table(metric: Metric) -> list[Column]:
    """Return the columns of a metric that stand in its table of the systems."""
    return [column for column in metric.ABOUT.columns if column.mean and column.table]


def _all() -> list[Column]:
    return [column for metric in metrics() for column in metric.ABOUT.columns]
