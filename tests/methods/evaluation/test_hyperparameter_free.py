"""Frozen configurations: every one trains from its horizon alone, in one program for all."""

import math

import jax
import jax.numpy as jnp
import pytest
from gradchain import eval_params
from gradchain import optimizers as o
from optax import apply_updates

NAMES = (*o.learning_rate_free_methods(), "adamw", "nadamw")


def loss(x):
    return jnp.sum(jnp.array([1.0, 3.0]) * (x - 1.0) ** 2) / 2


@pytest.mark.parametrize("name", NAMES)
def test_every_method_needs_its_horizon_alone(name):
    opt = o.calibrated(name)(horizon=200)
    start = jnp.array([1.2, 0.8])

    def step(carry, _):
        x, state = carry
        value, grads = jax.value_and_grad(loss)(x)
        updates, state = opt.update(grads, state, x, value=value)
        return (apply_updates(x, updates), state), jnp.max(jnp.abs(updates))

    (x, state), moves = jax.jit(lambda: jax.lax.scan(step, (start, opt.init(start)), None, 200))()
    assert float(loss(eval_params(state, x))) < float(loss(start))
    if name != "schedule_free_adamw":  # all others come to rest
        assert float(moves[-1]) < 0.1 * float(jnp.max(moves))


def test_a_calibration_replaces_defaults_and_the_schedule_ends_at_its_share():
    half = o.calibrated("adamw", warmup_fraction=0.0, horizon_fraction=0.5, b1=0.0)(8)
    x = jnp.ones(())
    state, moves = half.init(x), []
    for _ in range(8):
        updates, state = half.update(x, state, x)
        moves.append(float(updates))
    assert moves[0] < 0.0
    assert moves[4:] == [0.0] * 4


@pytest.mark.parametrize("decay", ["cosine", "none"])
def test_the_factor_of_every_step(decay):
    opt = o.workload_agnostic(lambda: o.sgd(1.0), 10, 0.4, decay)
    _, moves = jax.lax.scan(lambda s, _: opt.update(1.0, s)[::-1], opt.init(1.0), length=12)
    falling = [(1 + math.cos(math.pi * min(t / 6, 1))) / 2 for t in range(8)]
    wanted = [0.25, 0.5, 0.75, 1.0, *(falling if decay == "cosine" else [1.0] * 8)]
    assert moves.tolist() == pytest.approx([-f for f in wanted], abs=1e-6)


def test_others_are_refused_by_name():
    with pytest.raises(ValueError, match="calibrated: name='lion' is not one of 'cocob'"):
        o.calibrated("lion")
    with pytest.raises(ValueError, match="decay='linear'"):
        o.calibrated("adamw", decay="linear")
    with pytest.raises(ValueError, match="calibrated: horizon=-5"):
        o.calibrated("adamw")(-5)
