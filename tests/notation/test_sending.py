"""Everything is sent with `>>`: transformations, functions, and what reads other signals, too."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flows import PARAMS, close, run
from gradchain import chain, flow
from gradchain.transforms import (
    FlowError,
    either,
    ema,
    every,
    lift,
    reset_when,
    sqrt,
    step_count,
    trace,
    when,
)
from gradchain.transforms.accumulate import pull_back_momentum
from gradchain.transforms.closures import gradient_at
from gradchain.transforms.control import at_params

X = jnp.array([3.0])


def values(opt, steps=4, **extra):
    """What comes out of the gradient 1 at each step."""
    state, seen = opt.init(X), []
    for _ in range(steps):
        out, state = opt.update(jnp.ones(1), state, X, **extra)
        seen.append(float(out[0]))
    return seen


def test_either_runs_one_of_two():
    def step(g):
        first, second = trace(1.0), optax.trace(1.0)
        return g >> either(step_count() <= 2, first, chain(optax.scale(10.0), second))

    assert values(flow(step)) == [1, 2, 10, 20]


def test_reset_when_starts_anew():
    def step(g):
        return g >> reset_when(step_count() == 3, trace(1.0))

    assert values(flow(step)) == [1, 2, 1, 2]


def test_when_holds_or_rests():
    held = flow(lambda g: g >> when(step_count() % 2 == 1, trace(1.0)))
    resting = flow(lambda g: g >> when(step_count() % 2 == 1, trace(1.0), otherwise=7.0))
    assert values(held) == [1, 1, 2, 2]
    assert values(resting) == [1, 7, 2, 7]


def test_pull_back_momentum_sets_it_to_zero():
    opt = flow(lambda g: g >> pull_back_momentum(step_count() == 2, trace(1.0)))
    assert values(opt) == [1, 2, 1, 2]


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: every(1, t), lambda t: every(2, t)])
def test_at_params_shows_other_params(wrap):
    """To weight decay and to closures, also where what is shown them runs as a whole."""

    def decayed(g, params):
        return g >> at_params(2 * params, wrap(optax.add_decayed_weights(0.5)))

    assert values(flow(decayed), 1) == [4.0]

    def gradients(g, params):
        slope = flow(lambda g, params, value_fn: gradient_at(params, value_fn))
        return g >> at_params(2 * params, wrap(slope))

    assert values(flow(gradients), 1, value_fn=lambda x: jnp.sum(x**2)) == [12.0]


def test_a_condition_is_that_of_the_step_and_needs_are_passed_on():
    opt = flow(lambda g, value: g >> when(value > 0, ema(0.5), name="mu"))
    assert opt.needs == ("value",)
    close(run(opt, value=1.0)[0], run(ema(0.5))[0])


def test_functions_and_anything_of_optax():
    opt = flow(lambda g: abs(g) >> sqrt >> lift(lambda x: 2 * x) >> optax.scale(3.0))
    assert values(opt, 1) == [6.0]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda g: g >> 3, "cannot be sent into 3"),
        (lambda g: when(step_count() > 1, ema(0.5)), "g >> t"),
        (lambda g: ema(0.5), "g >> t"),
        (lambda g: when(step_count() > 1, ema(0.5), g), "positional"),
    ],
)
def test_what_is_not_sent_is_told(step, message):
    with pytest.raises(FlowError, match=message):
        flow(step)


def test_a_tree_of_conditions_is_refused_where_it_runs():
    opt = flow(lambda g: g >> when(g > 0, ema(0.5)))
    with pytest.raises((TypeError, ValueError)):
        run(opt, params=jax.tree.map(jnp.ones_like, PARAMS))
