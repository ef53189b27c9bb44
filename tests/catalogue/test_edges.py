"""Gradients at the edges of the number format leave numbers behind; `tests/edges.py` says which."""

import jax
import numpy as np
import pytest
from edges import trajectory
from shared import trained
from subjects import NAMES, finite

every_method = pytest.mark.parametrize("name", NAMES)

REPRESENTABLE = ((1, 1, 1e-30, 1, 1e18, 1), (1e-30,) * 3, (1e-16,) * 3, (1e18,) * 3)
"""Scales of the gradient, step by step, whose squares are numbers: params and state are finite."""

BEYOND = tuple(
    scales for size in (1e20, 1e30, 5e37) for scales in ((1, 1, size, 1, 1), (size,) * 4)
)
"""Scales whose squares are none: nothing becomes NaN."""


DIVERGING = ("sgd_hd", "sso")
"""The rate of one grows by a product of gradients, the inner problem of one is a square of outputs:
their own quantities leave the format at some of these scales."""

FALLING_BACK = ("k_fac", "mup_second_order")
"""An inverse that the format does not hold is NaN in their state; the plain gradient stands in."""

LARGER = ("gradient_regularization", "zo_adam")
"""Their estimate exceeds the gradient: an infinite square is read as the largest number."""


@every_method
def test_gradients_of_any_size_leave_numbers_behind(name):
    one = trained(name)
    for scales in REPRESENTABLE:
        for reached in trajectory(one.scaled_step, one.start, one.begun, scales):
            found = reached[0] if name in FALLING_BACK + LARGER else reached
            assert finite(found) or name in DIVERGING, scales
            assert not holds_nan(reached) or name in DIVERGING + FALLING_BACK, scales
    for scales in BEYOND:
        for params, _ in trajectory(one.scaled_step, one.start, one.begun, scales):
            assert not holds_nan(params) or name in DIVERGING, scales


def holds_nan(tree):
    return any(np.isnan(leaf).any() for leaf in jax.tree.leaves(tree))
