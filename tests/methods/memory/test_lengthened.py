"""APOLLO and what it shares with Fira; their runs are compared with records."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain import describe
from gradchain.optimizers import apollo, apollo_mini, fira
from gradchain.transforms.shape import limit_norm_growth
from trajectories import gradients, run, tree

SHAPES = {"w": (6, 5), "b": (3,)}


def test_norms_grow_by_no_more_than_the_factor():
    params, grads = tree(0, **SHAPES), gradients(9, **SHAPES)
    moved = [params, *run(limit_norm_growth(1.2, 0.0), params, grads)]
    for name in SHAPES:
        wanted, past = [], None
        for g in grads:
            size = np.linalg.norm(g[name])
            past = size if past is None else min(size, 1.2 * past)
            wanted.append(g[name] * past / size)
        got = np.diff([x[name] for x in moved], axis=0)
        np.testing.assert_allclose(got, wanted, rtol=1e-9)


def test_directions_hold_for_an_interval_and_are_not_kept():
    """Without averages the update tells the directions; of the state only moments and a norm."""
    params = tree(0, w=(6, 5))
    grads = [tree(1, w=(6, 5))] * 6
    opt = apollo(1.0, rank=2, update_interval=3, b1=0.0, b2=0.0, eps=0.0, max_growth=None)
    moved = np.diff([params["w"], *(x["w"] for x in run(opt, params, grads))], axis=0)
    np.testing.assert_allclose(moved[:3], np.broadcast_to(moved[0], (3, 6, 5)), rtol=1e-9)
    np.testing.assert_allclose(moved[3:], np.broadcast_to(moved[3], (3, 6, 5)), rtol=1e-9)
    assert np.max(np.abs(moved[3] / moved[0] - 1)) > 0.01


def test_reversed_sides_are_the_left_of_tall_and_the_right_of_wide_matrices():
    for shape, side in ((6, 5), "left"), ((5, 6), "right"):
        params, grads = tree(0, w=shape), gradients(4, w=shape)
        one, two = (
            run(fira(0.1, 2, 2, projection=x), params, grads)[-1]["w"]
            for x in ("reverse_std", side)
        )
        np.testing.assert_allclose(one, two, rtol=1e-9)


@pytest.mark.parametrize(
    ("opt", "kept"),
    [
        (apollo(0.1, rank=2), 2 * 50 * 2 + 1),
        (apollo(0.1, rank=2, projection="svd"), 2 * 50 * 2 + 8 * 2 + 1),
        (apollo_mini(0.1), 2 * 50 + 1),
        (fira(0.1, rank=2), 2 * 50 * 2 + 8 * 2 + 1),
    ],
)
def test_how_much_is_kept(opt, kept):
    count, key = 1, 2 if "random" in str(opt) else 0
    params = {"w": jax.ShapeDtypeStruct((50, 8), jnp.float32)}
    assert describe(opt, params).state_bytes == 4 * (kept + count + key)
