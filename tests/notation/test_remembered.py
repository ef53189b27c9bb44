"""Shapes that are kept from one flow to the next."""

import jax
import jax.numpy as jnp
import pytest
from gradchain.transforms import delay, flow, lift
from gradchain.transforms.notation import remembered

COLUMNS = 2


def narrowed(x):
    return x[:, :COLUMNS]


def doubled():
    def step(g):
        past = delay(like=(now := g * 2.0 + 1.0))
        past << now
        return g + lift(jnp.sum)(past)

    return flow(step)


def test_what_the_user_wrote_is_looked_at_anew(monkeypatch):
    def step(g):
        past = delay(like=(now := lift(narrowed)(g)))
        past << now
        return g + lift(jnp.sum)(past)

    params = jnp.ones((3, 4))
    assert jax.tree.leaves(flow(step).init(params))[0].shape == (3, 2)
    monkeypatch.setitem(globals(), "COLUMNS", 3)
    assert jax.tree.leaves(flow(step).init(params))[0].shape == (3, 3)


@pytest.mark.parametrize("x64", [False, True])
def test_shapes_are_those_of_the_setting(x64):
    with jax.enable_x64(x64):
        shape = doubled().init(jnp.ones(3))
    assert jax.tree.leaves(shape)[0].dtype == (jnp.float64 if x64 else jnp.float32)


def test_only_so_many_are_kept(monkeypatch):
    monkeypatch.setattr(remembered, "LIMIT", 2)
    monkeypatch.setattr(remembered, "_SHAPES", type(remembered._SHAPES)())
    for size in (1, 2, 3):
        doubled().init(jnp.ones(size))
    assert len(remembered._SHAPES) <= 2


def test_what_scalars_make_among_themselves_is_nothing_about_a_leaf():
    """A scalar fits the leaf that it meets, and a leaf may be a scalar by its shape."""
    with jax.enable_x64(True):
        row = [jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.float64)]
        remembered.remember(jnp.multiply, row, [False, False], row[1])
        assert remembered.remembered(jnp.multiply, row, [False, False]) == row[1]
        assert remembered.remembered(jnp.multiply, row, [True, False]) is None
