"""The Flag Aggregator and MoNNA beside their algorithms in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import flag_aggregator, mo_nna
from workers import AXIS

pytestmark = pytest.mark.usefixtures("x64")


def loss(units, basis):
    return np.sqrt(np.maximum(0, 1 - ((units @ basis) ** 2).sum(axis=1))).sum()


def columns(units, basis, lambda_):
    """The weighted gradients and their weighted differences."""
    p, eps = len(units), 0.05

    def weighted(u, factor):
        return factor * (abs(1 - ((u @ basis) ** 2).sum()) + eps) ** -0.25 * u

    pairs = [(i, j) for i in range(p) for j in range(p) if i != j]
    apart = [weighted(units[i] - units[j], lambda_ / (p * (p - 1))) for i, j in pairs]
    return np.array([weighted(g, 1.0) for g in units] + (apart if lambda_ else []))


def flag(gradients, start, lambda_, num_iters, scale):
    """The authors' loop, on whole matrices."""
    rank, basis = start.shape[1], np.linalg.qr(start)[0]
    units = gradients / np.maximum(np.linalg.norm(gradients, axis=1), 1e-12)[:, None]
    value, fell = loss(units, basis), 1.0
    for _ in range(num_iters):
        if fell <= 1e-10 or value <= 1e-10:
            break
        new = np.linalg.svd(columns(units, basis, lambda_).T, full_matrices=False)[0][:, :rank]
        fell = value - loss(units, new)
        if fell > 0:
            basis, value = new, loss(units, new)
    rows = units / rank if scale == "official" else gradients / len(gradients)
    return (rows @ basis @ basis.T).sum(axis=0)


@pytest.mark.parametrize(
    ("rank", "lambda_", "num_iters", "scale"),
    [(1, 0.0, 1, "official"), (3, 2.5, 4, "paper"), (2, 9.0, 30, "official")],
)
def test_flag_on_whole_matrices(rank, lambda_, num_iters, scale):
    rng = np.random.default_rng(rank)
    gradients = rng.normal(size=(7, 20)) + rng.normal(size=20)
    gradients[3] = 0
    start = rng.uniform(-0.5, 0.5, (20, rank))
    rule = flag_aggregator(rank, lambda_, num_iters, scale=scale, eps=0.05, init=start)
    expected = flag(gradients, start, lambda_, num_iters, scale)
    np.testing.assert_allclose(jax.jit(rule)(jnp.asarray(gradients)), expected, rtol=1e-9)


def test_flag_draws_a_start_of_its_own_at_every_step():
    gradients = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)))
    rule = flag_aggregator()
    assert not np.allclose(rule(gradients, count=0), rule(gradients, count=1))
    np.testing.assert_array_equal(rule(gradients), rule(gradients, count=0))
    with pytest.raises(ValueError, match=r"flag_aggregator: init must have the shape \(4, 1\)"):
        flag_aggregator(init=np.ones((3, 1)))(gradients)


@pytest.mark.parametrize("sent", [np.nan, np.inf, 1e30, -5.0])
def test_neighbors_who_send_anything_are_left_out(sent):
    """Four honest workers, one outside of whom f = 1 is allowed for; the answer of one is late."""
    rng = np.random.default_rng(1)
    params, grads = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    late = np.ones((4, 4), bool)
    late[0, 3] = False
    opt = mo_nna(0.1, 1, momentum=0.5, axis_name=AXIS)

    def step(x, g, neighbors):
        received = jnp.full((1, 6), sent)
        updates, _ = opt.update(g, opt.init(x), x, neighbors=neighbors, received=received)
        return optax.apply_updates(x, updates)

    together = jax.jit(jax.vmap(step, axis_name=AXIS))
    found = together(*map(jnp.asarray, (params, grads, late)))
    half = params - 0.1 * 0.5 * grads
    everyone = np.vstack([half, np.full((1, 6), sent)])
    for i in range(4):
        distance = np.linalg.norm(everyone - half[i], axis=1)
        distance[~np.isfinite(distance)] = np.inf
        distance[:4][~late[i]] = np.inf
        count = late[i].sum() + 1 - 1
        nearest = [j for j in np.argsort(distance, kind="stable")[:count] if distance[j] < np.inf]
        np.testing.assert_allclose(found[i], everyone[nearest].mean(axis=0), rtol=1e-9)


def test_too_many_byzantine_neighbors_are_refused():
    opt, x = mo_nna(0.1, 2, axis_name=AXIS), jnp.zeros(3)
    step = jax.vmap(lambda g: opt.update(g, opt.init(x), x)[0], axis_name=AXIS)
    with pytest.raises(ValueError, match=r"num_byzantine=2 of 4 workers.*= 5 workers"):
        step(jnp.zeros((4, 3)))
    with pytest.raises(ValueError, match="received must"):
        mo_nna(0.1, 0).update(x, mo_nna(0.1, 0).init(x), x, received=jnp.zeros((2, 5)))
