"""Local steps, tracked means and games of several workers, against their algorithms in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import eval_params, optimizers
from gradchain.transforms.workers import axis
from workers import AXIS, WORLDS

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(5)
N, D, STEPS = 3, 6, 6
START = RNG.normal(size=D)
OWN = RNG.normal(size=(N, STEPS, D))
A = np.stack([x @ x.T / 8 + (y - y.T) / 2 for x, y in RNG.normal(size=(N, 2, D, D))])
SHIFT = RNG.normal(size=(N, D))
COINS = np.array([True, False, False, True, False, True])


def steps(opt, world="stacked"):
    """Params of all workers after each step, (steps, workers, entries), and their last states.

    Gradients do not depend on the params; the operators F_i(z) = A_i z + d_i do.
    """

    def train(own, start):
        def operator(z):
            return own["A"] @ z + own["d"]

        def step(carry, g):
            params, state = carry
            updates, state = opt.update(g, state, params, operator_fn=operator)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        start = axis.own(start, AXIS)
        (_, state), path = jax.lax.scan(step, (start, opt.init(start)), own["g"])
        return path, state

    own = {"g": OWN, "A": A, "d": SHIFT}
    own = jax.tree.map(jnp.asarray, own)
    path, state = WORLDS[world](train, own, jnp.asarray(START), agree=False)
    return np.moveaxis(np.asarray(path), 0, 1), state


def games(opt, world="stacked"):
    """The same with the operator as gradient, where workers agree."""

    def train(own, z):
        def step(carry, _):
            z, state = carry
            field = lambda z: own["A"] @ z + own["d"]  # noqa: E731
            updates, state = opt.update(field(z), state, z, operator_fn=field)
            z = optax.apply_updates(z, updates)
            return (z, state), z

        return jax.lax.scan(step, (z, opt.init(z)), length=STEPS)[1]

    own = jax.tree.map(jnp.asarray, {"A": A, "d": SHIFT})
    return WORLDS[world](train, own, jnp.asarray(START))


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_rounds_of_adam_that_starts_anew():
    """And an outer rate that is a schedule of the rounds."""
    rates = np.array([0.7, 0.5, 0.3])
    opt = optimizers.local_sgd(
        optax.adam(0.1), 2, optax.sgd(lambda t: jnp.asarray(rates)[t], 0.9, nesterov=True), True,
        axis_name=AXIS,
    )  # fmt: skip
    found, state = steps(opt)
    x, b = START, 0.0
    for r in range(3):
        y, m, v = np.tile(x, (N, 1)), 0.0, 0.0
        for k in (1, 2):
            g = OWN[:, 2 * r + k - 1]
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            y = y - 0.1 * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
            if k == 1:
                close(found[2 * r], y)
        d = x - y.mean(0)
        b = 0.9 * b + d
        x = x - rates[r] * (d + 0.9 * b)
        close(found[2 * r + 1], np.tile(x, (N, 1)))
    close(jax.vmap(eval_params)(state, jnp.asarray(found[-1])), np.tile(x, (N, 1)))


def test_one_worker_that_averages_looks_ahead():
    def path(opt):
        return jax.vmap(lambda g: g)(_alone(opt))

    ours = path(optimizers.local_sgd(optax.adam(0.1), 3, optax.sgd(0.5)))
    close(ours, path(optimizers.lookahead(optax.adam(0.1), sync_period=3, slow_step_size=0.5)))


def _alone(opt):
    def step(carry, g):
        params, state = carry
        updates, state = opt.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    x = jnp.asarray(START)
    return jax.jit(lambda g: jax.lax.scan(step, (x, opt.init(x)), g)[1])(jnp.asarray(OWN[0]))


@pytest.mark.parametrize("delay", [0, 1])
def test_co2_with_a_relative_penalty_and_clipping(delay):
    opt = optimizers.co2(
        optax.sgd(0.1), 2, 0.8, 0.3, "relative", clip_threshold=0.05, delay=delay, axis_name=AXIS
    )
    found, _ = steps(opt)
    x, before, m, pending = START, START, 0.0, np.zeros(D)
    for r in range(3):
        new = 0.1 * OWN[:, 2 * r : 2 * r + 2].sum(1).mean(0)
        d, pending = (pending, new) if delay else (new, new)
        size = np.linalg.norm(d)
        gap = 1 + (np.linalg.norm(x - before) / size if size else 0)
        m = np.clip(0.3 * m + d / gap, -0.05, 0.05)
        before, x = x, x - 0.8 * m
        close(found[2 * r + 1], np.tile(x, (N, 1)))


def test_co2_without_delay_and_momentum_is_local_sgd():
    ours, _ = steps(optimizers.co2(optax.sgd(0.1), 3, outer_momentum=0.0, delay=0, axis_name=AXIS))
    close(ours, steps(optimizers.local_sgd(optax.sgd(0.1), 3, optax.sgd(1.0), axis_name=AXIS))[0])


def test_co2_hands_the_points_to_a_penalty():
    def penalty(x, before, d):
        return 2.0 + jnp.sum(jnp.abs(x - before)) + 0 * jnp.sum(d)

    found = _alone(optimizers.co2(optax.sgd(0.1), 2, 1.0, 0.0, penalty, delay=0))
    x, before = START, START
    for r in range(3):
        d = 0.1 * OWN[0, 2 * r : 2 * r + 2].sum(0)
        before, x = x, x - d / (2 + np.abs(x - before).sum())
        close(found[2 * r + 1], x)


def test_delayed_nesterov_that_takes_part_at_each_step():
    mu, n, c, eta = 0.8, 3, 0.2, 0.1
    found = _alone(optimizers.delayed_nesterov(eta, mu, n, c))
    x, m, buffer = START, 0.0, 0.0
    for t in range(STEPS):
        buffer, share = buffer + OWN[0, t], c
        if (t + 1) % n == 0:
            m, buffer, share = mu * m + buffer / n, 0.0, 1 - c * n + c
        x = x - eta * (share * mu * m + OWN[0, t] / n)
        close(found[t], x)


def test_with_one_worker_delayed_nesterov_is_nesterov():
    ours = _alone(optimizers.delayed_nesterov(0.1, 0.8, buffer_size=1))
    close(ours, _alone(optax.sgd(0.1, 0.8, nesterov=True)))


def top(x, k):
    return x * (np.argsort(np.argsort(-np.abs(x), kind="stable")) < k)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("refresh", ["new", "old"])
def test_masha_with_the_largest_entries_and_errors(refresh, world):
    eta, tau, kd, ks = 0.3, 0.4, 2, 3
    found = games(
        optimizers.masha2(
            eta, tau, kd, ks, refresh=refresh, axis_name=AXIS,
            coin_fn=lambda key, count: jnp.asarray(COINS)[count],
        ),
        world,
    )  # fmt: skip
    z = w = START
    errors, e = np.zeros((N, D)), np.zeros(D)
    for k in range(STEPS):
        here = A @ w + SHIFT
        half = tau * z + (1 - tau) * w - eta * here.mean(0)
        p = eta * (A @ half + SHIFT - here) + errors
        sent = np.stack([top(x, kd) for x in p])
        errors, total = p - sent, sent.mean(0) + e
        back = top(total, ks)
        e, new = total - back, half - back
        if COINS[k]:
            w = new if refresh == "new" else z
        z = new
        close(found[k], z)


def test_masha_that_sends_everything_is_extragradient():
    found = games(optimizers.masha1(0.3, 0.0, D, D, axis_name=AXIS))
    z, M, d = START, A.mean(0), SHIFT.mean(0)
    for k in range(STEPS):
        z = z - 0.3 * (M @ (z - 0.3 * (M @ z + d)) + d)
        close(found[k], z)


RING = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.2, 0.5]])


@pytest.mark.parametrize("mix_before_step", [True, False])
def test_uncompressed_gossip_with_a_proximal_step(mix_before_step):
    opt = optimizers.cd_prox_sgt(
        0.3, RING, ratio=None, l1=0.1, max_norm=2.0, mix_before_step=mix_before_step, axis_name=AXIS
    )
    found, _ = steps(opt)
    x, y, last = np.tile(START, (N, 1)), np.zeros((N, D)), np.zeros((N, D))
    for t in range(STEPS):
        norms = np.linalg.norm(OWN[:, t], axis=1, keepdims=True)
        g = OWN[:, t] * np.minimum(1, 2 / (norms + 1e-6))
        raw, last = y + g - last, g
        y = RING @ raw
        x = x - 0.3 * (y if mix_before_step else raw)
        x = RING @ (np.sign(x) * np.maximum(np.abs(x) - 0.03, 0))
        close(found[t], x)


def test_gossip_of_the_largest_half():
    """A share of exactly one half: with any less an entry fewer is sent."""
    opt = optimizers.cd_prox_sgt(
        0.3, RING, 0.7, 0.6, ratio=0.5, l1=0.1, max_norm=None, axis_name=AXIS
    )
    found, _ = steps(opt)
    x, y, last, known_x, known_y = np.tile(START, (N, 1)), *np.zeros((4, N, D))

    def sent(rows):
        return np.stack([top(row, D // 2) for row in rows])

    for t in range(STEPS):
        raw, last = y + OWN[:, t] - last, OWN[:, t]
        known_y = known_y + sent(raw - known_y)
        y = raw + 0.6 * (RING @ known_y - known_y)
        x = x - 0.3 * y
        x = np.sign(x) * np.maximum(np.abs(x) - 0.03, 0)
        known_x = known_x + sent(x - known_x)
        x = x + 0.7 * (RING @ known_x - known_x)
        close(found[t], x)


def test_the_trackers_sum_to_the_gradients_whatever_is_sent():
    opt = optimizers.cd_prox_sgt(0.1, RING, ratio=0.2, max_norm=None, axis_name=AXIS)
    _, state = steps(opt)
    close(optax.tree.get(state, "tracker").sum(0), OWN[:, -1].sum(0))


def test_a_matrix_that_does_not_mix_is_refused():
    for wrong in (np.eye(3)[:2], 0.9 * np.eye(3), np.array([[1.5, -0.5], [-0.5, 1.5]])):
        with pytest.raises(ValueError, match=r"cd_prox_sgt: mixing .* doubly stochastic"):
            optimizers.cd_prox_sgt(0.1, wrong)
    with pytest.raises(ValueError, match=r"cd_prox_sgt: mixing=1.0 must be"):
        optimizers.cd_prox_sgt(0.1, 1.0)
    with pytest.raises(ValueError, match=r"cd_prox_sgt: weights .* shape \(3,\).*have shape"):
        steps(optimizers.cd_prox_sgt(0.1, np.eye(2), axis_name=AXIS))


@pytest.mark.parametrize("world", WORLDS)
def test_steps_that_skip_the_average(world):
    eta, p = 0.1, 0.4
    opt = optimizers.proxskip_vip(
        eta, p, ascent_mask=True, axis_name=AXIS,
        coin_fn=lambda key, count: jnp.asarray(COINS)[count],
    )  # fmt: skip
    found, state = steps(opt, world)
    x, h = np.tile(START, (N, 1)), np.zeros((N, D))
    for t in range(STEPS):
        there = x - eta * (-OWN[:, t] - h)
        x = there
        if COINS[t]:
            x = np.tile((there - eta / p * h).mean(0), (N, 1))
            h = h + p / eta * (x - there)
        close(found[t], x)
    close(np.asarray(optax.tree.get(state, "correction")).sum(0), np.zeros(D))
