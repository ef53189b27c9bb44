"""Every method follows the recorded runs of its published implementations.

A record is collected as soon as its method is in the catalogue, and must then be met.
"""

import pytest
import replay


@pytest.mark.parametrize("name", replay.collect())
def test_follows_the_published_implementation(name):
    replay.check(replay.load(name))
