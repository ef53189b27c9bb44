"""Runs by hand of methods with momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

SHAPES = {"w": (4, 3), "k": (2, 3, 2), "b": (3,), "s": ()}


WITH_CONVOLUTION = {**SHAPES, "c": (2, 2, 3, 4)}


RATES = np.array([0.05, 0.04, 0.03, 0.02, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01, 0.02, 0.03])


def schedule(count):
    return jnp.asarray(RATES)[count]


def trees(steps, shapes=SHAPES, seed=0):
    """Starting params and gradients, one tree per step."""
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    grads = [
        {name: rng.normal(size=shape) * 3.0 ** rng.normal() for name, shape in shapes.items()}
        for _ in range(steps)
    ]
    return params, grads


def run(opt, params, grads):
    """The params after each step, as NumPy trees."""
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *grads)

    def step(carry, g):
        params, state = carry
        updates, state = opt.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    @jax.jit
    def trained(params):
        return jax.lax.scan(step, (params, opt.init(params)), stacked)

    path = jax.tree.map(np.asarray, trained(jax.tree.map(jnp.asarray, params))[1])
    return [jax.tree.map(lambda x, t=t: x[t], path) for t in range(len(grads))]


def follows(opt, leaf_rule, steps=12, shapes=SHAPES, rtol=1e-10):
    """Compares with `leaf_rule(theta, gradients, state dict, t) -> theta`, leaf by leaf."""
    params, grads = trees(steps, shapes)
    path = run(opt, params, grads)
    for name in shapes:
        theta, memory = params[name], {}
        for t in range(1, steps + 1):
            theta = leaf_rule(theta, grads[t - 1][name], memory, t)
            np.testing.assert_allclose(
                path[t - 1][name], theta, rtol=rtol, atol=1e-13, err_msg=f"{name} {t}"
            )


# --- AdamP and SGDP ------------------------------------------------------------------------------


def projected(theta, g, u, delta, eps, wd_ratio, axis):
    if theta.ndim <= 1:
        return u, 1.0
    moved = [np.moveaxis(x, axis, 0) for x in (theta, g, u)]
    for rows in (theta.shape[axis], 1):
        th, gr, up = (x.reshape(rows, -1) for x in moved)
        norms = [np.maximum(np.linalg.norm(x, axis=1), eps) for x in (th, gr)]
        cosine = np.abs(np.sum(th * gr, axis=1)) / norms[0] / norms[1]
        if cosine.max() < delta / np.sqrt(th.shape[1]):
            q = th / (np.linalg.norm(th, axis=1, keepdims=True) + eps)
            out = up - q * np.sum(q * up, axis=1, keepdims=True)
            return np.moveaxis(out.reshape(moved[2].shape), 0, axis), wd_ratio
    return u, 1.0
