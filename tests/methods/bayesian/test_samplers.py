"""Samplers find the posterior that they should."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import fsgld, gaussian_shard_approximation, sgld

MEANS, PRECISIONS = np.array([-2.0, 0.5, 3.0]), np.array([1.0, 4.0, 0.5])


def chains(opt, gradient, shards, steps, count=2000):
    """Where many chains are after some steps."""

    def step(carry, shard):
        x, state = carry
        updates, state = opt.update(gradient(x, shard), state, x, shard=shard)
        return (optax.apply_updates(x, updates), state), None

    start = jnp.zeros(count)
    run = jax.jit(lambda shards: jax.lax.scan(step, (start, opt.init(start)), shards)[0][0])
    return np.asarray(run(jnp.asarray(shards[:steps])))


def test_shards_with_their_corrections_are_one_posterior():
    """Gaussian shards: what FSGLD corrects is exact, whatever shard it stays on."""
    probs = np.array([0.5, 0.25, 0.25])
    means, precisions = jnp.asarray(MEANS, jnp.float32), jnp.asarray(PRECISIONS, jnp.float32)

    def gradient(x, shard):
        return x + precisions[shard] * (x - means[shard]) / jnp.asarray(probs, x.dtype)[shard]

    opt = fsgld(0.02, tuple(MEANS), tuple(PRECISIONS), tuple(probs))
    shards = np.repeat(np.random.default_rng(0).choice(3, 40, p=probs), 10)  # ten steps on each
    found = chains(opt, gradient, shards, 400)
    precision = 1 + PRECISIONS.sum()
    mean = (MEANS * PRECISIONS).sum() / precision
    np.testing.assert_allclose(found.mean(), mean, atol=0.05)
    np.testing.assert_allclose(found.std(), precision**-0.5, rtol=0.1)


def test_the_correction_has_mean_zero_with_matrices_too():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=3))
    roots = rng.normal(size=(3, 3, 3))
    precisions = [r @ r.T for r in roots]
    means, probs = list(rng.normal(size=(3, 3))), np.array([0.2, 0.3, 0.5])
    opt = fsgld(2.0, means, precisions, probs, temperature=0.0)
    moved = [opt.update(jnp.zeros(3), opt.init(x), x, shard=s)[0] for s in range(3)]
    np.testing.assert_allclose(probs @ np.stack(moved), 0, atol=1e-4)
    assert np.abs(moved).max() > 0.1
    with pytest.raises(ValueError, match="shard=3 must be from 0 to 2"):
        opt.update(jnp.zeros(3), opt.init(x), x, shard=3)
    with pytest.raises(ValueError, match="one entry for each shard"):
        fsgld(0.1, means, precisions[:2], probs)


def test_the_prior_of_sgld_is_its_weight_decay():
    opt = sgld(0.1, weight_decay=4.0)
    found = chains(opt, lambda x, _: jnp.zeros_like(x), np.zeros(200, int), 200)
    np.testing.assert_allclose(found.std(), 0.5, rtol=0.15)
    still, x = sgld(0.1, temperature=0.0, weight_decay=4.0), jnp.array([1.0, -2.0])
    u, _ = still.update(3 * x, still.init(x), x)
    np.testing.assert_allclose(u, -0.05 * (3 + 4) * x, rtol=1e-6)


def test_a_shard_by_samples():
    samples = jnp.asarray(np.random.default_rng(2).normal(3.0, 0.5, (20000, 2)))
    mean, precision = gaussian_shard_approximation(samples)
    np.testing.assert_allclose(mean, 3.0, atol=0.02)
    np.testing.assert_allclose(precision, 4.0, rtol=0.05)


def test_noise_may_be_drawn_by_step_and_params_alone():
    x, ends = jnp.array([1.0, -2.0]), []
    for noise_fn in (
        lambda step, params: params + step,
        lambda key, count, params: params + count,
    ):
        opt = sgld(0.5, noise_fn=noise_fn)
        updates, state = opt.update(x, opt.init(x), x)
        ends.append([updates, opt.update(x, state, x + updates)[0]])
    np.testing.assert_array_equal(*ends)
    np.testing.assert_allclose(ends[0][0], np.sqrt(0.5) * x - 0.25 * x, rtol=1e-6)
