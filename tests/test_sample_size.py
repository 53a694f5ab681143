"""scripts/sample_size.py, and that docs/sample-size.md says what it prints."""

import contextlib
import io
import json
import math
import re
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from radquant import statistics
from radquant.bounds import between
from radquant.errors import UserError
from radquant.reporting import sample_size

REPOSITORY = Path(__file__).parents[1]


def ask(*options: object) -> "subprocess.CompletedProcess[str]":
    """Run the script in this process: a Python that starts anew takes two seconds."""
    command = [str(REPOSITORY / "scripts" / "sample_size.py"), *map(str, options)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    before = signal.getsignal(signal.SIGTERM)
    with (
        mock.patch.object(sys, "argv", command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def test_the_documentation_shows_what_its_command_prints() -> None:
    page = (REPOSITORY / "docs" / "sample-size.md").read_text(encoding="utf-8")
    command, shown = re.findall(r"```(?:text)?\n(.*?)\n```", page, re.S)
    ended = ask(*shlex.split(command)[2:])
    assert [line.strip() for line in ended.stdout.splitlines()] == shown.splitlines()


def test_a_pilot_gives_the_spread_of_each_precision(tmp_path: Path) -> None:
    rows = {"w4a16": {"sd": 0.1, "n": 40}, "same": {"sd": 0.0, "n": 40}}
    quality = {"settings": {"primary": "complete"}, "differences": {"complete": rows}}
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"quality": quality}))
    said = ask("--summary", path).stdout
    assert "w4a16:\n  standard deviation of the differences: 0.1000\n  40 reports" in said
    assert "0.01: takes 785 reports" in said  # (2.8016 · 0.1 / 0.01)²
    assert "same:\n  all differences are equal" in said
    one = ask("--summary", path, "--precision", "w4a16", "--reports", 785).stdout
    assert "785 reports find a true difference of 0.0100 or more" in one
    # A pilot of 40 says little of the spread (χ² of 39), and Holm's correction is for both.
    low, high = (0.1 * math.sqrt(39 / quantile) for quantile in (58.1201, 23.6543))
    ends = [statistics.rounded(statistics.pairs_needed(0.01, sd)) for sd in (low, high)]
    assert f"785 reports ({ends[0]:,} to {ends[1]:,})" in said
    low, high = statistics.settle_range(0.01, (low, high), 2, 0.025, 0.8, 1)
    assert f"{low:,} to {high:,} reports settle" in said
    assert "Holm's correction for 2 precisions" in said


def test_a_pilots_patients_count(tmp_path: Path) -> None:
    row = {"sd": 0.0, "n": 60, "patients": 20, "spread": {"low": 0.0, "high": 0.3}}
    quality = {"settings": {"primary": "complete"}, "differences": {"complete": {"w4": row}}}
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"quality": quality}))
    said = ask("--summary", path).stdout
    # Nothing varied in the pilot, which excludes no loss: 368 patients at least, of 3 reports each.
    assert "60 reports of 20 patients" in said
    assert f"{statistics.rounded(3 * 368):,} to " in said
    wide = sample_size.by_patient(sample_size.Spread(0.1, 120, 0.09, 0.12, 120), 3, 0.3)
    assert wide.sd == pytest.approx(0.1 * math.sqrt(1.6))
    assert wide.patients == 40
    assert "leave out --reports" in ask("--summary", path, "--icc", 0.3).stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--sd", 0.1], "error: --reports is missing"),
        (["--sd", 0.1, "--reports", 9, "--difference", 0], "error: --difference must be above 0"),
        (["--sd", 0.1, "--reports", 9, "--power", 1], "error: --power 1.0 does not lie between"),
        (["--interval", 0.1, 0.1, "--reports", 9], "error: an interval from 0.1 to 0.1 is none"),
        (["--summary", "nowhere.json"], "nowhere.json"),
        (["--sd", 0.1, "--reports", 9, "--icc", 0.3], "error: --icc says nothing without"),
        (["--sd", 0.1, "--reports", 9, "--reports-per-patient", 3], "error: --icc is missing"),
    ],
)
def test_a_mistake_gets_one_sentence(options: list[object], sentence: str) -> None:
    ended = ask(*options)
    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert len(ended.stderr.removeprefix("at work\n").splitlines()) == 1


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "-1", "1e7", "", "9" * 5000, "1,5"])
def test_a_number_out_of_its_bounds_names_the_option(text: str) -> None:
    with pytest.raises(UserError, match=r"^--sd is .* must be a number from 0 to 1000000$"):
        between("--sd", float, 0, 1e6)(text)
    with pytest.raises(UserError, match=r"^--port is .* must be a whole number from 0 to 65535$"):
        between("--port", int, 0, 65535)(text if text != "1e7" else "65536")
    assert between("--sd", float, 0, 1e6)("0.5") == 0.5


@pytest.mark.parametrize("row", [{"sd": float("nan"), "n": 9}, {"sd": 0.1}, {"sd": "x", "n": 9}, 3])
def test_a_summary_that_was_edited(tmp_path: Path, row: object) -> None:
    quality = {"settings": {"primary": "complete"}, "differences": {"complete": {"w4": row}}}
    (tmp_path / "summary.json").write_text(json.dumps({"quality": quality}))
    with pytest.raises(UserError, match=r"is no summary\.json of a finished run"):
        sample_size.spread_of_pilot(tmp_path / "summary.json", None, None)
    with pytest.raises(UserError, match="at least 1e-09"):
        sample_size.check_levels(0.95, 0.8, [1e-300])


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_what_is_no_number_is_no_spread_and_no_difference(value: float) -> None:
    with pytest.raises(UserError, match="a standard deviation of"):
        sample_size.spread_of_numbers(value, None, 100, 0.95)
    with pytest.raises(UserError, match="--difference must be above 0"):
        sample_size.check_levels(0.95, 0.8, [0.01, value])


def test_a_difference_that_no_number_of_reports_shows() -> None:
    assert statistics.pairs_needed(1e-12, 0.1) > 1e20
    with pytest.raises(UserError, match="so small beside the spread"):
        statistics.pairs_needed(1e-300, 0.1)
