"""Every argument is noticed by a recorded run of its method: a test that cannot fail is no test."""

import json
from pathlib import Path

import pytest
from noticing import by_api, recorded, unnoticed

KNOWN = json.loads((Path(__file__).parent / "unnoticed.json").read_text())
"""Arguments that no recorded run notices; each waits for a run in which it matters.

Probabilities of draws that the method makes itself cannot be recorded.
"""


@pytest.mark.by_hand
@pytest.mark.parametrize("method", recorded())
def test_a_change_of_one_per_cent_is_noticed(method):
    found = [line for api, runs in by_api(method).items() for line in unnoticed(api, runs)]
    assert set(found) <= set(KNOWN)
