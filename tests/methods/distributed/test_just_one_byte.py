"""Slopes in a byte: what is sent, what is read, and whose loss is evaluated where."""

from functools import partial

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain import optimizers
from workers import AXIS, WORLDS

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(2)
START = RNG.normal(size=4)
TARGETS = RNG.normal(size=(3, 2, 4)) * np.array([1e-5, 1.0, 1e4])[:, None, None]
DRAWS = RNG.normal(size=(5, 3, 2, 4))


def squares(size, target, x):
    return size * np.sum((x - target) ** 2)


@pytest.mark.parametrize("world", WORLDS)
def test_the_rule_of_three_workers_with_two_samples_each(world):
    """A worker whose slopes are tiny, one whose are large, and one whose are zero."""
    eta, eps = 1e-4, 1e-2
    opt = optimizers.just_one_byte(
        eta, eps, 2, axis_name=AXIS,
        perturbation_fn=lambda t, worker, sample, params: jnp.asarray(DRAWS)[t, worker, sample],
    )  # fmt: skip

    def train(own, x):
        def step(carry, _):
            x, state = carry
            value_fn = lambda x, j: own["size"] * jnp.sum((x - own["target"][j]) ** 2)  # noqa: E731
            u, state = opt.update(None, state, x, value_fn=value_fn)
            return (x + u, state), x + u

        return jax.lax.scan(step, (x, opt.init(x)), length=5)[1]

    sizes = np.array([1e-6, 1.0, 0.0])
    own = {"target": jnp.asarray(TARGETS), "size": jnp.asarray(sizes)}
    found = WORLDS[world](train, own, jnp.asarray(START))
    x = START
    for t in range(5):
        total = 0
        for i in range(3):
            for j in range(2):
                z = DRAWS[t, i, j]
                loss = partial(squares, sizes[i], TARGETS[i, j])
                p = (loss(x + eps * z) - loss(x - eps * z)) / (2 * eps)
                if p:
                    e = np.clip(np.round(16 * np.log(abs(p))), -127, 127)
                    total = total + np.sign(p) * np.exp(e / 16) * z
        x = x - eta / np.sqrt(6) * total
        np.testing.assert_allclose(found[t], x, rtol=1e-9)


def test_a_slope_that_is_no_number_is_sent_as_zero():
    opt = optimizers.just_one_byte(0.1)
    x = jnp.asarray(START)

    @jax.jit
    def step(bad):
        return opt.update(None, opt.init(x), x, value_fn=lambda x: bad * jnp.sum(x))

    for bad, moves in ((jnp.nan, False), (jnp.inf, False), (1.0, True)):
        u, _ = step(bad)
        assert bool(jnp.any(u != 0)) == moves
        assert bool(jnp.all(jnp.isfinite(u)))


def test_workers_draw_directions_of_their_own():
    one = optimizers.just_one_byte(0.1, one_byte=False, axis_name=AXIS)
    x = jnp.asarray(START)

    def step(slope):
        return one.update(None, one.init(x), x, value_fn=lambda x: slope * jnp.sum(x))[0]

    together = jax.jit(jax.vmap(step, axis_name=AXIS))
    found = [together(jnp.asarray(slopes))[0] for slopes in ([1.0, 0], [0, 1.0])]
    assert abs(np.corrcoef(found)[0, 1]) < 0.999


def test_a_byte_and_a_bit_are_counted():
    for samples, size in ((1, 2), (8, 9), (30, 34)):
        opt = optimizers.just_one_byte(0.1, num_samples=samples, axis_name=AXIS)
        assert gradchain.describe(opt, jnp.ones(5, jnp.float32)).sent_bytes == size
