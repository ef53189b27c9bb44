"""Which methods meet a test in every run, where a fault of one of them is not looked for alone."""

from collections.abc import Iterable
from typing import Any

import pytest
from subjects import seed_of


def in_turn(names: Iterable[str], part: int, of: int) -> Any:
    """Parametrizes a test by `name`; each method meets one of the `of` tests that share a subject.

    The parts are those tests, from 0 on. All methods meet all of them by hand, and a new one should
    before it is trusted: `pytest -m "by_hand or not by_hand" tests/catalogue -k NAME`.
    """
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=() if seed_of(name) % of == part else pytest.mark.by_hand)
            for name in names
        ],
    )
