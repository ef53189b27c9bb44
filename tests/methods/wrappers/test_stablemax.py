"""The loss against its formula, at logits that overflow it, and its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.optimizers import stablemax_cross_entropy


def plain(logits, labels):
    s = np.where(logits >= 0, logits + 1, 1 / (1 - np.minimum(logits, 0)))
    p = s / s.sum(-1, keepdims=True)
    return np.mean(-np.log(np.take_along_axis(p, labels[..., None], -1)))


def test_formula_and_derivative(x64):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(scale=4.0, size=(2, 3, 5)), rng.integers(5, size=(2, 3))
    logits[0, 0, 0] = 0.0
    found, slope = jax.value_and_grad(stablemax_cross_entropy)(jnp.asarray(logits), labels)
    np.testing.assert_allclose(found, plain(logits, labels), rtol=1e-12)
    for place in [(0, 0, 0), (1, 2, 3), (0, 1, labels[0, 1])]:
        step = np.zeros_like(logits)
        step[place] = 1e-6
        difference = plain(logits + step, labels) - plain(logits - step, labels)
        np.testing.assert_allclose(slope[place], difference / 2e-6, rtol=1e-6)


def test_no_logit_is_too_large():
    logits = jnp.array([[3e38, 3e38, -3e38], [1e4, 0.0, 0.0]], jnp.bfloat16)
    loss, slope = jax.value_and_grad(stablemax_cross_entropy)(logits, jnp.array([0, 0]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, (np.log(2) + 2e-4) / 2, rtol=1e-2)
    assert np.all(np.isfinite(slope.astype(jnp.float32)))


def test_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="labels of shape"):
        stablemax_cross_entropy(jnp.ones((2, 3)), jnp.zeros(3, jnp.int32))
    with pytest.raises(ValueError, match="integers"):
        stablemax_cross_entropy(jnp.ones((2, 3)), jnp.zeros(2))
