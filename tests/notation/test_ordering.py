"""Entries by their rank are those that sorting finds, ties, signs and infinities included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.transforms.notation import ordering
from gradchain.transforms.notation.ordering import (
    are_first,
    are_largest,
    kth_largest,
    places_of_largest,
)
from samples import sample
from subjects import step_of

MANY = ordering.PICKED + 800


def entries(dtype) -> jax.Array:
    """Of all sizes and both signs, with ties, zeros of both signs and infinities."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=MANY) * 10.0 ** rng.integers(-4, 4, MANY)
    x[100:200], x[300:400], x[500:520] = x[7], 0.0, -0.0
    x[20], x[21] = np.inf, -np.inf
    return jnp.asarray(x, dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64])
def test_counting_finds_what_sorting_finds(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        x = entries(dtype)
        falling = np.sort(np.asarray(x, np.float64))[::-1]
        order = np.argsort(-np.asarray(x, np.float64), kind="stable")
        found, chosen = jax.jit(kth_largest), jax.jit(are_largest)
        for k in (0, 1, 57, 1500, MANY // 2, MANY - 1):
            assert float(found(x, k)) == falling[k]
            assert set(np.flatnonzero(chosen(x, k))) == set(order[:k])
        assert not chosen(x, -1).any()
        assert chosen(x, MANY + 1).all()


@pytest.mark.parametrize("size", [1, 9, ordering.SORTED, ordering.SORTED + 1, 300])
def test_the_first_and_the_largest_of_any_length(size):
    """Among a few entries those that are no numbers come last, as in a stable sort."""
    made = np.random.default_rng(size)
    first, largest = jax.jit(jax.vmap(are_first)), jax.jit(jax.vmap(are_largest))
    flags = made.random((4, size)) < np.array([[0.0], [0.3], [0.8], [1.0]])
    x = made.integers(-2, 3, (4, size)).astype(np.float32)
    if size <= ordering.SORTED:
        x[0, ::3], x[1, ::4], x[2, ::2] = np.nan, -np.inf, -0.0
    place = np.argsort(np.argsort(-x, kind="stable"), kind="stable")
    for k in (-1, 0, 1, size // 2, size, size + 3):
        count = np.full(4, k)
        assert (first(flags, count) == flags & (np.cumsum(flags, axis=1) <= k)).all()
        assert (largest(x, count) == (place < k)).all()


def test_the_places_are_those_of_top_k():
    x = entries(jnp.float32)
    for k in (3, ordering.PICKED + 5):
        assert set(np.asarray(places_of_largest(x, k))) == set(np.asarray(jax.lax.top_k(x, k)[1]))


def test_the_derivative_goes_to_the_entry_itself():
    x = entries(jnp.float32)
    for k in (0, 40, 2000):
        slope = jax.grad(lambda x, k=k: kth_largest(x, k))(x)
        assert jnp.isfinite(slope).all()
        chosen = jnp.isfinite(x) & (x == kth_largest(x, k))
        np.testing.assert_allclose(slope, chosen / jnp.maximum(chosen.sum(), 1), rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["coordinate_clipped_adam", "global_sparse_momentum", "magnitude_pruning", "sparse_momentum"],
)
def test_a_method_moves_alike_whether_it_sorts_or_counts(name, monkeypatch):
    params = {"w": jax.random.normal(jax.random.key(0), (6, 5))}
    found = []
    for most in (10**6, 1):
        monkeypatch.setattr(ordering, "SORTED", most)
        opt = sample(name)
        step, held = jax.jit(step_of(opt)), (params, opt.init(params))
        for _ in range(3):
            held = step(*held)
        found.append(held[0]["w"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


@pytest.mark.parametrize("count", [1, 300])
def test_places_of_the_largest_lie_within_an_array_with_entries_that_are_no_numbers(count):
    x = jnp.arange(float(MANY)).at[:count].set(jnp.nan)
    places = jax.jit(lambda x: places_of_largest(x, MANY - 100))(x)
    assert places.shape == (MANY - 100,)
    assert 0 <= int(places.min()) <= int(places.max()) < MANY
