"""Sums along the rows of a stack are those of jnp.sum, whichever way they are computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.transforms.notation import rows
from gradchain.transforms.notation.rows import comparisons, mean_of_rows, sorted_rows, sum_of_rows


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64, jnp.int32])
@pytest.mark.parametrize("count", [0, 5, 20])
def test_long_rows_are_summed_as_short_ones(dtype, count):
    key = jax.random.key(2)
    stack = (100 * jax.random.normal(key, (count, 3, rows.SHORT))).astype(dtype)
    found = jax.jit(sum_of_rows)(stack)
    assert found.dtype == dtype
    exact = np.asarray(stack).astype(complex).sum(0)
    np.testing.assert_allclose(
        found, exact, rtol=1e-2 if dtype == jnp.bfloat16 else 1e-5, atol=1e-4
    )


def test_no_sum_of_a_mean_overflows_and_what_is_not_finite_shows():
    stack = jnp.full((4, rows.SHORT + 1), 3e38).at[1, 0].set(jnp.inf).at[2, 1].set(jnp.nan)
    mean = mean_of_rows(stack)
    assert jnp.isinf(mean[0])
    assert jnp.isnan(mean[1])
    np.testing.assert_allclose(mean[2:], 3e38, rtol=1e-6)


@pytest.mark.parametrize("count", range(1, 18))
def test_a_network_sorts_whatever_is_zero_or_one_and_so_everything(count):
    """Knuth's principle, with all patterns of few rows and many drawn ones of more."""
    rng = np.random.default_rng(count)
    patterns = np.indices((2,) * count).reshape(count, -1) if count <= 12 else None
    values = rng.integers(0, 2, (count, 5000)) if patterns is None else patterns
    for low, high in comparisons(count):
        pair = values[[low, high]]
        values[low], values[high] = pair.min(0), pair.max(0)
    np.testing.assert_array_equal(values, np.sort(values, axis=0))


def test_long_rows_are_sorted_as_short_ones():
    stack = jax.random.normal(jax.random.key(0), (7, rows.SHORT + 3)).at[2, 5].set(jnp.inf)
    assert (jax.jit(sorted_rows)(stack) == jnp.sort(stack, axis=0)).all()
