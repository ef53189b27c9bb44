"""Norms of whole trees at both ends of the number format."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.transforms.notation.roots import (
    cube_root,
    maximum_over,
    relative_norm,
    saturated,
    shares_of_maximum,
    summable,
)

UNIT = np.asarray([1.0, -2.0, 4.0, -2.0]) / 5
"""Of length 1."""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_factors_of_a_norm_are_numbers_wherever_the_entries_are(dtype):
    limits = np.finfo(dtype)
    low, high = float(limits.tiny), float(limits.max)
    sizes = [low, low**0.75, low**0.5, 1.0, high**0.5, high**0.75, high / 8]

    def factors(x):
        return relative_norm([x[:2], x[2:]])

    slope_of = jax.jit(jax.value_and_grad(lambda x: math.prod(factors(x))))

    with jax.enable_x64(dtype == np.float64):
        for size in sizes:
            x = dtype(size) * np.asarray([1, -2, 4, -2], dtype)
            scale, relative = jax.jit(factors)(x)
            np.testing.assert_allclose(x / scale / relative, UNIT, rtol=1e-5)
            if size < high / 8:  # of which the norm is a number
                length, slope = slope_of(x)
                np.testing.assert_allclose(length, 5 * dtype(size), rtol=1e-5)
                np.testing.assert_allclose(slope, UNIT, rtol=1e-5)
        assert math.prod(factors(jnp.zeros(4, dtype))) == 0
        assert jnp.isnan(math.prod(factors(jnp.asarray([1, np.nan, 2, 3], dtype))))


def test_the_cube_root_is_right_to_the_last_digits_at_all_sizes():
    with jax.enable_x64(True):
        x = jnp.concatenate([jnp.logspace(-300, 300, 601), -jnp.logspace(-300, 300, 7)])
        np.testing.assert_allclose(cube_root(x), np.cbrt(x), rtol=5e-16)
    edges = jnp.array([0.0, jnp.inf, -jnp.inf, jnp.nan, -8.0, 3.4e38], jnp.float32)
    np.testing.assert_allclose(cube_root(edges), np.cbrt(edges), rtol=3e-7)
    slope = jax.grad(lambda x: cube_root(x).sum())(edges)
    np.testing.assert_allclose(slope[jnp.array([0, 1, 4])], [0, 0, 1 / 12], rtol=1e-6)


def test_a_maximum_is_shared_by_what_reaches_it_however_it_is_rounded():
    x = jnp.asarray([[1.0, 3.0, 3.0, -2.0], [-1.0, -4.0, -2.0, -1.5]])
    for axis in (None, 0, 1):
        expected = jax.grad(lambda x, axis=axis: jnp.sum(jnp.max(x, axis)))(x)
        found = jax.grad(lambda x, axis=axis: jnp.sum(maximum_over(x, axis, initial=None)))(x)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    for by in (1 - 2.0**-22, 1 + 2.0**-22):
        assert jnp.sum(shares_of_maximum(x, by * jnp.max(x))) == 1
    largest = jnp.asarray([jnp.inf, 1.0])
    assert jnp.isfinite(jax.grad(maximum_over)(largest)).all()


@pytest.mark.parametrize("shape", [(3, 16), (16,), (2, 3, 20), (5, 8), (23, 1)])
def test_what_is_saturated_is_the_same_however_the_clamp_is_written(shape):
    """Last axes of 12 to 23 entries take other operations, with the derivatives of a clamp."""
    top = float(jnp.finfo(jnp.float32).max)
    odd = [jnp.inf, -jnp.inf, jnp.nan, top, -top, 0.0, -0.0, 1e-30, -2.5]
    x = jnp.resize(jnp.array(odd, jnp.float32), shape)
    for bounded, bound in ((saturated, top), (lambda x: summable(x, 4), top / 64)):
        expected = np.clip(np.asarray(x), -np.float32(bound), np.float32(bound))
        found, slope = jax.jvp(bounded, (x,), (jnp.ones_like(x),))
        np.testing.assert_array_equal(found, expected)
        is_zero = expected == 0
        np.testing.assert_array_equal(np.signbit(found)[is_zero], np.signbit(expected)[is_zero])
        inside = np.abs(np.asarray(x)) < bound
        np.testing.assert_array_equal(np.asarray(slope)[inside], 1)
        np.testing.assert_array_equal(np.asarray(slope)[np.isinf(x)], 0)
