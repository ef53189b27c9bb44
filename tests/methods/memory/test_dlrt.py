"""Dynamical low-rank training beside a transcription of the papers, with explicit gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import dlrt
from gradchain.transforms.subspaces import LowRank, factored, random_low_rank

TARGET = np.random.default_rng(0).normal(size=(7, 5))
WEIGHT = np.random.default_rng(1).uniform(0.2, 2.0, size=(7, 5))
STEPS = 8


def loss(params):
    w = params["w"].matrix()
    off = w - TARGET.astype(w.dtype)
    of_b = jnp.sum((params["b"] - 1.0) ** 2) * jnp.sum(off**2)
    return jnp.sum(WEIGHT.astype(w.dtype) * off**2) / 2 + of_b


def gradient(w, b):
    return WEIGHT * (w - TARGET) + 2 * np.sum((b - 1) ** 2) * (w - TARGET)


def rate(count):
    return 0.05 / (1 + count)


def transcription(start, b, tolerance, min_rank, max_rank):
    """The papers' algorithm with factors that have as many columns as their rank."""
    u, s, v = start
    for count in range(STEPS):
        eta = rate(count)
        g = gradient(u @ s @ v.T, b)
        k, l = u @ s - eta * g @ v, v @ s.T - eta * g.T @ u
        if tolerance is not None:
            k, l = np.hstack([k, u]), np.hstack([l, v])
        u1, v1 = np.linalg.qr(k)[0], np.linalg.qr(l)[0]
        s = (u1.T @ u) @ s @ (v1.T @ v).T
        turned = u1 @ s @ v1.T
        s = s - eta * u1.T @ gradient(turned, b) @ v1
        b = b - eta * 2 * (b - 1) * np.sum((turned - TARGET) ** 2)
        u, v = u1, v1
        if tolerance is not None:
            p, sigma, q = np.linalg.svd(s)
            tails = [np.linalg.norm(sigma[j:]) for j in range(len(sigma) + 1)]
            rank = next(j for j, tail in enumerate(tails) if tail <= tolerance * tails[0])
            rank = min(max(rank, min_rank), max_rank)
            u, s, v = u @ p[:, :rank], np.diag(sigma[:rank]), v @ q[:rank].T
        yield {"w": u @ s @ v.T, "b": b}, len(s)


@pytest.mark.parametrize(
    ("tolerance", "rank", "min_rank", "max_rank"),
    [(None, 2, 2, 2), (0.1, 2, 1, 5), (0.1, 3, 1, 3), (0.5, 3, 1, 4), (0.9, 3, 2, 4)],
)
def test_dlrt(tolerance, rank, min_rank, max_rank):
    with jax.enable_x64(True):
        small = random_low_rank(jax.random.key(0), (7, 5), rank)
        held = small if tolerance is None else small.padded(5)
        opt = dlrt(rate, rank, tolerance, min_rank, max_rank)
        params = {"w": held, "b": jnp.array([0.5, 1.1])}
        start, b = jax.tree.map(np.asarray, small), np.asarray(params["b"])

        def step(carry, _):
            params, state = carry
            updates, state = opt.update(params, state, params, value_fn=loss)
            params = optax.apply_updates(params, updates)
            return (params, state), ({**params, "w": params["w"].matrix()}, params["w"])

        scan = jax.jit(lambda p: jax.lax.scan(step, (p, opt.init(p)), length=STEPS)[1])
        got, factors = jax.tree.map(np.asarray, scan(params))
    for t, (wanted, r) in enumerate(transcription(start, b, tolerance, min_rank, max_rank)):
        for name, x in wanted.items():
            np.testing.assert_allclose(got[name][t], x, rtol=1e-9, atol=1e-12)
        now = LowRank(*(factor[t] for factor in factors))
        assert now.rank() == r
        np.testing.assert_allclose(now.u[:, :r].T @ now.u[:, :r], np.eye(r), atol=1e-12)


def test_any_direction_may_be_inside_and_other_leaves_get_it_too():
    """Adam's first step is the sign of the gradient, of K, of L, of S and of b."""
    params = {"w": factored(jnp.asarray(TARGET, jnp.float32) + 1, 2), "b": jnp.array([0.5, 1.1])}
    opt = dlrt(0.1, 2, inner=optax.scale_by_adam())
    state = opt.init(params)
    updates, state = jax.jit(lambda p, s: opt.update(p, s, p, value_fn=loss))(params, state)
    np.testing.assert_allclose(updates["b"], [0.1, -0.1], rtol=1e-4)
    sizes = sorted(x.shape for x in jax.tree.leaves(state) if x.ndim == 2)
    assert sizes == sorted([(7, 2), (5, 2), (2, 2)] * 2)


def test_factors_that_do_not_fit_are_refused():
    params = {"w": factored(jnp.asarray(TARGET, jnp.float32), 2)}
    for opt in (dlrt(0.1, 3), dlrt(0.1, 3, tolerance=0.1)):
        with pytest.raises(ValueError, match=r"rank=3.*2 columns|2 columns.*rank=3"):
            opt.update(params, opt.init(params), params, value_fn=lambda p: 0.0 * p["w"].s[0, 0])
    with pytest.raises(ValueError, match="rank=6"):
        factored(jnp.asarray(TARGET), 6)
    with pytest.raises(ValueError, match="max_rank=1"):
        params["w"].padded(1)
