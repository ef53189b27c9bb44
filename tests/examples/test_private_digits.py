"""Digits are learned from clipped, noisy sums; without the accountant the example says so."""

import importlib
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def main(monkeypatch):
    """The example where dp-accounting is not installed."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    monkeypatch.setenv("COLUMNS", "200")
    return importlib.import_module("private_digits").main


def test_more_noise_is_less_right(main, capsys):
    assert main(["--no-budget", "--noise", "0", "20", "--steps", "120"]) == 0
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    quiet, noisy = (float(line[3].strip().rstrip("%")) for line in lines)
    assert quiet > 80
    assert noisy < quiet - 20


def test_a_missing_accountant_and_bad_noise_are_told_in_a_line(main, capsys):
    for arguments, message in (
        ([], "pip install 'gradchain[private]'"),
        (["--noise", "-1"], "--noise -1 must be at least 0"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
