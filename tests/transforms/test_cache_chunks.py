"""Batches that are taken chunk by chunk."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.transforms.kronecker import cache_chunks


def turned(batch, factor):
    """In the form of the batch; done twice it is another one."""
    return jax.tree.map(
        lambda x: factor * jnp.sin(x) + jnp.mean(x**2, (-2, -1), keepdims=True), batch
    )


def measured(batch, factor):
    """In another form, one number of each element among it."""
    a = jax.tree.leaves(batch)[0]
    return factor * a @ a.swapaxes(-1, -2), jnp.sum(a, (-2, -1))


@pytest.mark.parametrize("fn", [turned, measured])
@pytest.mark.parametrize(("count", "length"), [(7, 3), (8, 4), (5, 1)])
def test_chunks_are_the_whole(fn, count, length, monkeypatch):
    """Whether their length divides the number of elements or not; derivatives, too."""
    monkeypatch.setattr(cache_chunks, "CHUNK_BYTES", length * 4 * 4 * 3)
    array = np.random.default_rng(0).normal(size=(count, 4, 3)).astype(np.float32)
    batch = array if count % 2 else (array, {"b": array[:, :2] + 1})
    chunked = jax.jit(cache_chunks.by_cache_chunks(fn))
    assert ("while" in chunked.lower(batch, 2.0).as_text()) == (count > length)

    def total(fn):
        return lambda batch: sum(jnp.sum(x**2) for x in jax.tree.leaves(fn(batch, 2.0)))

    chex.assert_trees_all_close(chunked(batch, 2.0), fn(batch, 2.0), rtol=1e-5, atol=1e-6)
    slopes = jax.grad(total(chunked))(batch), jax.grad(total(fn))(batch)
    chex.assert_trees_all_close(*slopes, rtol=1e-4, atol=1e-5)
