"""Gradients at the edges of the number format leave numbers behind; `tests/edges.py` says which."""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edges import MANY, at_the_end, at_the_ends, differing, trajectory
from samples import sample
from shared import ORDINARY, slope_of, trained
from subjects import NAMES, extras_for, finite

every_method = pytest.mark.parametrize("name", NAMES)

REPRESENTABLE = ((1, 1, 1e-30, 1, 1e18, 1), (1e-30,) * 3, (1e-16,) * 3, (1e18,) * 3)
"""Scales of the gradient, step by step, whose squares are numbers: params and state are finite."""

BEYOND = tuple(
    scales for size in (1e20, 1e30, 5e37) for scales in ((1, 1, size, 1, 1), (size,) * 4)
)
"""Scales whose squares are none: nothing becomes NaN."""


@every_method
def test_gradients_of_any_size_leave_numbers_behind(name):
    one = trained(name)
    for scales in REPRESENTABLE:
        for reached in trajectory(one.scaled_step, one.start, one.begun, scales):
            assert finite(reached), scales
    for scales in BEYOND:
        for params, _ in trajectory(one.scaled_step, one.start, one.begun, scales):
            assert not holds_nan(params), scales


OF_SUMS = (
    "dowg", "momo", "novograd", "polyak_momentum", "shampoo", "stable_spam",
)  # fmt: skip
"""They sum the squares of many entries, which have no sum at 1e18."""


@pytest.mark.parametrize("name", OF_SUMS)
def test_gradients_of_many_entries_whose_squares_have_no_sum(name):
    """Params are right, in float32, at every step and after a single one."""
    with jax.enable_x64(True):
        for scales in ((1e18,) * 3, (1, 1e18, 1)):
            assert list(differing(name, scales, MANY)) == []


AFTER_ONE = {"demo": (1e12, 1, 1), "m_fac": (1e6, 1, 1), "sso": (1e18, 1)}
"""Scales of which the first leaves nothing behind that covers the others."""


@pytest.mark.parametrize("name", AFTER_ONE)
def test_gradients_after_one_of_another_size(name):
    with jax.enable_x64(True):
        assert list(differing(name, AFTER_ONE[name])) == []


@every_method
def test_the_largest_numbers_of_the_format_leave_no_nan(name):
    """As whole gradients and beside small entries, at every step and at one of ordinary ones."""
    one = trained(name)
    usual = slope_of(one.start)
    turning = [at_the_ends(one.start, turn) for turn in range(4)]
    largest = at_the_end(one.start)
    equal = jax.tree.map(np.abs, largest)
    for gradients in (
        turning,
        [equal] * 2,
        [usual, usual, turning[1], usual, usual],
        [largest] * 3,
        [usual, usual, largest, usual],
    ):
        params, state = one.start, one.begun
        for gradient in gradients:
            params, state = one.scaled_step(params, state, gradient, ORDINARY)
        assert not holds_nan(params)
        assert not holds_nan(state)


@every_method
def test_rows_that_no_batch_uses_keep_nothing_else_from_moving(name):
    """Most entries of a leaf are exactly 0, as in an embedding: of no statistic is that the end."""
    one, used = trained(name), 3
    gradient = jax.device_get(slope_of(one.start))
    gradient["w"] = gradient["w"] * (np.arange(8) == used)[:, None]
    params, state = one.start, one.begun
    for _ in range(5):
        params, state = one.scaled_step(params, state, gradient, ORDINARY)
    assert finite(params)

    def moved(params):
        away = {key: np.asarray(x) != np.asarray(one.start[key]) for key, x in params.items()}
        return [away["w"][used].any(), *(away[key].any() for key in ("u", "b", "s"))]

    # in three ordinary steps some methods move one leaf, or none yet
    usual, found = moved(one.params), moved(params)
    assert all(found) if all(usual) else any(found) >= any(usual)


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2])
@pytest.mark.parametrize(
    "name", ["adafactor", "adamw", "galore", "momo", "muon", "sam", "sgd", "soap"]
)
def test_params_in_eight_bits(name, dtype):
    """All is computed and stored in float32; updates leave as the params are."""
    opt, params = sample(name), jax.tree.map(lambda x: x.astype(dtype), trained("adamw").start)

    def step(params):
        state = opt.init(params)
        return (state, *opt.update(params, state, params, **extras_for(opt, params)))

    before, updates, after = jax.eval_shape(step, params)
    assert before == after
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    floats = [leaf.dtype for leaf in jax.tree.leaves(after) if leaf.dtype != jnp.int32]
    assert all(jnp.finfo(x).bits >= 32 for x in floats if jnp.issubdtype(x, jnp.floating))


def test_an_update_that_eight_bits_do_not_hold_is_the_largest():
    params = {"w": jnp.ones((2,), jnp.float8_e4m3fn)}
    opt = gradchain.optimizers.sgd(100.0)
    updates, _ = opt.update({"w": jnp.asarray([1.0, -16.0])}, opt.init(params), params)
    assert updates["w"].astype(jnp.float32).tolist() == [-96.0, 448.0]


def holds_nan(tree):
    return any(np.isnan(leaf).any() for leaf in jax.tree.leaves(tree))
