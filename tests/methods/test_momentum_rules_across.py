"""What methods with momentum of several families have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers, transforms
from momentum_rules import RATES, WITH_CONVOLUTION, follows, run, schedule, trees

pytestmark = pytest.mark.usefixtures("x64")


def test_the_projected_update_is_orthogonal_to_every_channel():
    rng = np.random.default_rng(0)
    params, g = (jnp.asarray(rng.normal(size=(3, 4, 5))) for _ in range(2))
    made = transforms.flow(
        lambda g, params: transforms.shape.project_out_radial(params, g, g, 100.0, 0.0, -1)[0]
    )
    u, _ = made.update(g, made.init(params), params)
    np.testing.assert_allclose(jnp.sum(u * params, axis=(0, 1)), 0, atol=1e-12)
    assert not np.allclose(jnp.sum(u * params, axis=(1, 2)), 0)


@pytest.mark.parametrize("mode", ["official", "clean"])
@pytest.mark.parametrize(
    ("interval", "amsgrad", "total"), [(0, False, 9), (1, False, None), (4, True, 9)]
)
def test_stable_spam(mode, interval, amsgrad, total):
    b1, b2, eps, decay, end = 0.8, 0.95, 1e-3, 0.2, 0.6
    gammas = (0.6, 0.8, 0.9)

    def rule(theta, g, past, t):
        rate = RATES[t - 1]
        scale = 1 if total is None else end + (1 - end) * (1 + np.cos(np.pi * t / (total + 1))) / 2
        theta = theta * (1 - rate * decay)
        c = past["c"] = past.get("c", 0) + 1
        largest = np.abs(g).max()
        x = past["x"] = gammas[2] * past.get("x", 0) + (1 - gammas[2]) * largest
        usual = x / (1 - gammas[2] ** c)
        g = np.where(np.abs(g) > usual, g / largest * usual, g)
        norm, a = np.sqrt(np.sum(g**2)), gammas[0] * scale
        n1 = past["n1"] = a * past.get("n1", 0) + (1 - a) * norm
        n2 = past["n2"] = gammas[1] * past.get("n2", 0) + (1 - gammas[1]) * norm**2
        if norm > 0:
            g = g / norm * (n1 / (1 - a**c)) / (np.sqrt(n2 / (1 - gammas[1] ** c)) + eps)
        beta, m, v = b1 * scale, past.get("m", 0 * g), past.get("v", 0 * g)
        reset = interval > 0 and t % interval == 0
        if mode == "clean":
            if reset:
                m, v, past["adam"] = 0 * g, 0 * g, 0
            adam = past["adam"] = past.get("adam", 0) + 1
        else:
            adam = past["c"] = 1 if reset else c
        m, v = beta * m + (1 - beta) * g, b2 * v + (1 - b2) * g**2
        y = past["y"] = np.maximum(past.get("y", 0), v) if amsgrad else v
        past["m"], past["v"] = (0 * g, 0 * g) if reset and mode == "official" else (m, v)
        root = np.sqrt(y) / np.sqrt(1 - b2**adam) + eps
        return theta - rate / (1 - beta**adam) * m / root

    opt = optimizers.stable_spam(
        schedule, b1, b2, eps, decay, None, *gammas, total, end, interval, amsgrad, mode
    )
    follows(opt, rule)


def test_clip_spikes_is_the_clipping_of_spam():
    params, grads = trees(8)
    wait, threshold, b2 = 3, 0.7, 0.9
    opt = optimizers.clipping.spikes.clip_spikes(threshold, b2, start=wait)
    state = opt.init(params)
    v = jax.tree.map(np.zeros_like, params)
    update = jax.jit(opt.update)
    for t, g in enumerate(grads, 1):
        out, state = update(g, state)
        for name in g:
            allowed = threshold * v[name]
            spike = (g[name] ** 2 > allowed) & (t >= wait)
            want = np.where(spike, np.sign(g[name]) * np.sqrt(allowed), g[name])
            np.testing.assert_allclose(out[name], want, rtol=1e-12)
            v[name] = b2 * v[name] + (1 - b2) * want**2


def test_adaptive_grad_clip_with_channels_last_is_that_of_optax():
    """The least norm is above that of some units, and below that of others."""
    params, grads = trees(1, {"w": (4, 3), "c": (2, 2, 3, 4), "b": (3,)})
    ours, theirs = (
        transforms.shape.adaptive_grad_clip(0.1, 2.0),
        optax.adaptive_grad_clip(0.1, 2.0),
    )
    got, _ = ours.update(grads[0], ours.init(params), params)
    want, _ = theirs.update(grads[0], theirs.init(params), params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), got, want)


def test_norm_loss_is_the_gradient_of_its_penalty():
    params, _ = trees(1, WITH_CONVOLUTION)

    def penalty(params):
        squares = jax.tree.map(
            lambda x: jnp.sum((1 - jnp.sqrt(jnp.sum(x**2, axis=_axes(x), keepdims=True))) ** 2),
            params,
        )
        return 0.3 * sum(jax.tree.leaves(squares))

    def _axes(x):
        return {0: None, 1: None, 2: 0, 3: 1}.get(x.ndim, tuple(range(x.ndim - 1)))

    opt = transforms.shape.norm_loss(0.3, eps=0.0)
    zero = jax.tree.map(np.zeros_like, params)
    got, want = jax.jit(lambda p: (opt.update(zero, (), p)[0], jax.grad(penalty)(p)))(params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), got, want)


@pytest.mark.parametrize("granularity", ["tensor", "filter", "global"])
def test_brake_around_sgd_is_adaptive_braking(granularity):
    (params, grads), how = trees(8), {"rho": 0.7, "granularity": granularity}
    one = run(optimizers.adaptive_braking(0.05, 0.8, **how), params, grads)
    two = run(optimizers.brake(optax.sgd(0.05, 0.8), **how), params, grads)
    for a, b in zip(one, two, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), a, b)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_delayed_gradients(steps):
    _, grads = trees(7)
    opt = transforms.accumulate.delay_gradients(steps)
    state = opt.init(grads[0])
    for t, g in enumerate(grads):
        out, state = opt.update(g, state)
        for name in g:
            want = grads[t - steps][name] if t >= steps else 0 * g[name]
            np.testing.assert_array_equal(out[name], want)
