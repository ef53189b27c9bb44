"""Runs of a method beside runs of a transcription of its rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS = 9
SHAPES = {"w": (3, 2), "b": (4,), "s": ()}
MASK = {"w": True, "b": False, "s": True}


def falling(count):
    """A schedule that is not constant."""
    return 0.1 * 0.9**count


def rate_at(learning_rate, t):
    """The rate of step t, counted from 1."""
    return learning_rate(t - 1) if callable(learning_rate) else learning_rate


def draws(seed=0, scale=1.0, lead=(), shapes=SHAPES, steps=STEPS):
    """Random params, and gradients for each step."""
    rng = np.random.default_rng(seed)
    params = {k: rng.normal(size=s) for k, s in shapes.items()}
    grads = [
        {k: scale * rng.normal(size=(*lead, *s)) for k, s in shapes.items()} for _ in range(steps)
    ]
    return params, grads


def single(tree):
    """The tree in float32."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def run(opt, params, grads, **extra):
    """Params after every step, in float64; extra inputs have a leading time axis."""
    with jax.enable_x64(True):
        opt = optax.with_extra_args_support(opt)
        params = jax.tree.map(jnp.asarray, params)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *grads)

        def step(carry, fed):
            params, state = carry
            gradient, more = fed
            updates, state = opt.update(gradient, state, params, **more)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        @jax.jit
        def train(params):
            return jax.lax.scan(step, (params, opt.init(params)), (stacked, extra))[1]

        return jax.tree.map(np.asarray, train(params))


def compare(got, wanted, rtol=1e-10):
    """Asserts that a run equals a list of params, one for each step."""
    for leaf in got:
        expected = np.stack([w[leaf] for w in wanted])
        np.testing.assert_allclose(got[leaf], expected, rtol=rtol, atol=1e-12, err_msg=leaf)


def by_leaf(rule, params, grads, mask=None, **settings):
    """Runs the transcription of one leaf on each; leaves outside the mask do not decay."""
    mask = mask or dict.fromkeys(params, True)
    runs = {}
    for leaf, x in params.items():
        own = dict(settings)
        if not mask[leaf]:
            own["weight_decay"] = 0.0
        runs[leaf] = rule(x, [g[leaf] for g in grads], **own)
    return [{k: r[t] for k, r in runs.items()} for t in range(len(grads))]


def steps_of(got):
    """A run as a list of params, to compare another run with."""
    count = len(next(iter(got.values())))
    return [{k: x[t] for k, x in got.items()} for t in range(count)]
