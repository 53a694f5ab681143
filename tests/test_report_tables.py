"""How numbers and tables are written."""

import pandas as pd
import pytest

from radquant.reporting import formatting
from radquant.reporting.finished_run import ROWS, values


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.123"), (-0.0001, "0.000"), (-0.25, "−0.250"), (None, "–"), (1234.5, "1,234.500")],
)
def test_numbers(value, text):
    assert formatting.number(value) == text


def test_changes_carry_their_sign():
    assert [formatting.change(x) for x in (0.02, -0.02, 0.0001, 0.0)] == [
        "+0.020",
        "−0.020",
        "0.000",
        "0.000",
    ]


def test_sizes():
    found = [formatting.size(x) for x in (2072, 102e6, 999.7e6, 1.234e9, 13.5e9)]
    assert found == ["2.07 kB", "102 MB", "1,000 MB", "1.23 GB", "13.5 GB"]


def test_table_columns_are_aligned():
    lines = formatting.table(["a", "b"], [["long name", "1"], ["x", "−0.25"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| --------- | ----: |"


def test_a_column_is_read_whole_and_in_order_however_long_it_is() -> None:
    written = [f"report {number}" for number in range(2 * ROWS + 7)]
    assert list(values(pd.Series(written))) == written
    assert list(values(pd.Series([], dtype=str))) == []
