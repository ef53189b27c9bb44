"""muLO beside a transcription, and derivatives in its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import mu_lo, mu_lo_weights

SHAPES = {"w": (4, 3), "k": (2, 5, 3), "b": (3,), "s": ()}
TIMES = np.array([1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5])


def drawn_weights(hidden):
    random = np.random.default_rng(3)
    return jax.tree.map(lambda x: x + 0.3 * random.normal(size=x.shape), mu_lo_weights(hidden))


def drawn(seed):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape) for name, shape in SHAPES.items()}


class Transcription:
    """One tensor, with the equations as the published network has them."""

    def __init__(self, weights):
        self.weights, self.state = weights, None

    def step(self, p, g, t):
        def decay(name, d):
            return 1 - np.exp(10 * (np.log(1 - np.asarray(d)) / 10 + self.weights[name]))

        def ema(old, d, new):
            return [d[k] * old[k] + (1 - d[k]) * new for k in range(len(d))]

        three = (0.9, 0.99, 0.999)
        mom, rms = decay("momentum_decays", three), decay("rms_decays", (0.999,))
        fac = np.clip(decay("adafactor_decays", three), 0, 1)
        order = np.argsort(g.shape, kind="stable") if g.ndim >= 2 else None
        q = g**2 + 1e-30
        means = [q, q] if order is None else [q.mean(a, keepdims=True) for a in order[:-3:-1]]
        if self.state is None:
            self.state = [[0.0] * 3, [0.0], [0.0] * 3, [0.0] * 3]
        new = (g, g**2, *means)
        decays = (mom, np.clip(rms, 0, 1), fac, fac)
        self.state = [ema(s, d, x) for s, d, x in zip(self.state, decays, new, strict=True)]
        m, (r,), row, col = self.state
        capped = lambda x: 1 / np.sqrt(np.maximum(x, 1e-9))  # noqa: E731
        if order is None:
            made = [g * capped(v + 1e-9) for v in row]
            last = [x / np.sqrt(v + 1e-6) for x, v in zip(m, row, strict=True)]
        else:
            factors = [
                capped(a / (a.mean(order[-2], keepdims=True) + 1e-9)) * capped(b)
                for a, b in zip(row, col, strict=True)
            ]
            made, last = [g * f for f in factors], [x * f for x, f in zip(m, factors, strict=True)]
        by_root = 1 / np.sqrt(r + 1e-6)
        roots = [1 / np.sqrt(x + 1e-8) for x in (*row, *col)]
        features = [g, p, *m, r, *(x * by_root for x in m), by_root, *made, *row, *col, *roots]
        features = [np.broadcast_to(f, g.shape) for f in (*features, *last)]
        x = np.stack([f / np.sqrt(1e-5 + np.mean(f**2)) for f in features], -1)
        times = np.broadcast_to(np.tanh((t - 1) / TIMES - 1), (*g.shape, 11))
        x, nn = np.concatenate([x, times], -1), self.weights["nn"]
        for i in range(3):
            x = x @ nn[f"w{i}"] + nn[f"b{i}"]
            x = np.maximum(x, 0) if i < 2 else x
        return p - 0.5 * x[..., 0] * np.exp(0.2 * x[..., 1])


def test_follows_a_transcription_in_float64():
    weights, params = drawn_weights(4), drawn(0)
    theirs = {name: Transcription(weights) for name in SHAPES}
    wanted = params
    with jax.enable_x64(True):
        opt = mu_lo(weights, exp_mult=0.2, step_mult=0.5, hidden_size=4)
        params = jax.tree.map(jnp.asarray, params)
        state, update = opt.init(params), jax.jit(opt.update)
        for t in range(1, 5):
            g = drawn(t)
            wanted = {n: theirs[n].step(wanted[n], g[n], t) for n in SHAPES}
            u, state = update(g, state, params)
            params = optax.apply_updates(params, u)
            for name in SHAPES:
                np.testing.assert_allclose(params[name], wanted[name], rtol=1e-9)


def test_a_width_multiplier_is_one_of_the_step_and_derivatives_go_through_steps():
    x = jnp.asarray(drawn(0)["w"], jnp.float32)

    def after_two_steps(weights, multiplier):
        opt = mu_lo(weights, step_mult=0.1, hidden_size=4, width_multiplier=multiplier)
        x_0, state = x, opt.init(x)

        def step(carry, _):
            u, state = opt.update(carry[0], carry[1], carry[0])
            return (carry[0] + u, state), u

        return jax.lax.scan(step, (x_0, state), length=2)

    @jax.jit
    @jax.value_and_grad
    def meta_gradient(weights):
        return jnp.sum(after_two_steps(weights, lambda x: 0.5)[0][0] ** 2)

    weights = jax.tree.map(jnp.asarray, mu_lo_weights(4))
    _, found = meta_gradient(weights)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(found))
    assert float(jnp.abs(found["nn"]["w2"]).max()) > 1e-3
    half, full = (jax.jit(after_two_steps, static_argnums=1)(weights, f)[1] for f in MULTIPLIERS)
    np.testing.assert_allclose(2 * half[0], full[0], rtol=1e-6)


MULTIPLIERS = (lambda x: 0.5, None)


def test_refuses_weights_of_another_width():
    with pytest.raises(ValueError, match=r"nn/w0.*\(39, 32\) for hidden_size=32, not \(39, 8\)"):
        mu_lo(mu_lo_weights(8))
    with pytest.raises(ValueError, match=r"rms_decays.*not None"):
        mu_lo({name: x for name, x in mu_lo_weights().items() if name != "rms_decays"})
