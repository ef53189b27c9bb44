"""Every argument is noticed by a recorded run of its method: a test that cannot fail is no test."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import replay
from noticing import at_rest, by_api, recorded, unnoticed

TESTS = Path(__file__).parent
KNOWN = json.loads((TESTS / "unnoticed.json").read_text())
"""Arguments of whose change by one per cent no recorded run takes notice -> why, and who does."""
AT_REST = json.loads((TESTS / "at_rest.json").read_text())
"""Numbers and switches that no recorded run moves -> the tests that do."""


@pytest.mark.by_hand
@pytest.mark.parametrize("method", recorded())
def test_a_change_of_one_per_cent_is_noticed(method):
    found = [line for api, runs in by_api(method).items() for line in unnoticed(api, runs)]
    assert set(found) <= set(KNOWN)


@pytest.mark.by_hand
def test_the_tests_that_are_named_notice_what_the_runs_do_not():
    subprocess.run([sys.executable, str(TESTS / "witnesses.py")], check=True)


def test_what_no_run_moves_is_known():
    assert sorted(at_rest()) == sorted(AT_REST)


@pytest.mark.parametrize("table", [KNOWN, AT_REST], ids=["unnoticed", "at rest"])
def test_the_lists_name_what_there_is(table):
    """Arguments that functions have, and tests that speak of them."""
    for entry, why in table.items():
        api, argument = entry.split(": ")
        assert argument in inspect.signature(replay.public(api)).parameters, entry
        for name in re.findall(r"[\w/]*test_\w+\.py", why):
            assert api in (TESTS / name).read_text(), entry
