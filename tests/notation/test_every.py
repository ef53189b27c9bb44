"""Transformations that run at some steps only, and delays that start anew."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flows import PARAMS, close, gradient, run
from gradchain import chain, flow, named
from gradchain.optimizers import random_scaling, rsgd, weight_prediction
from gradchain.transforms import (
    FlowError,
    debias,
    ema,
    every,
    lift,
    reset_every,
    reset_when,
    step_count,
    tap,
    trace,
    when,
)
from gradchain.transforms.manifolds import sphere

ONE = {"a": jnp.zeros(1)}


def count_of(opt, steps):
    """What an identity held by `opt` gives at each step: the number of the step it last ran at."""
    state, seen = opt.init(ONE), []
    for t in range(1, steps + 1):
        out, state = opt.update({"a": jnp.full(1, float(t))}, state, ONE)
        seen.append(int(out["a"][0]))
    return seen


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [1, 1, 1, 4, 4, 4, 7, 7]),
        ({"phase": 0}, [0, 0, 3, 3, 3, 6, 6, 6]),
        ({"phase": 2}, [0, 2, 2, 2, 5, 5, 5, 8]),
        ({"phase": 1, "start": 4}, [0, 0, 0, 4, 4, 4, 7, 7]),
        ({"phase": 4, "start": 2}, [0, 0, 0, 4, 4, 4, 7, 7]),
    ],
)
def test_phases(arguments, expected):
    assert count_of(every(3, optax.identity(), **arguments), 8) == expected


def test_every_step_is_the_transformation_itself():
    assert count_of(every(1, optax.identity()), 3) == [1, 2, 3]
    close(run(every(1, trace(0.9)))[0], run(trace(0.9))[0])


def test_the_inner_state_is_frozen_in_between():
    """A trace that runs at steps 1, 4, 7 has seen the gradients of those alone."""
    outs, _ = run(flow(lambda g: g >> every(3, trace(0.5))), steps=7)
    expected = jax.tree.map(
        lambda x, y, z: 0.25 * x + 0.5 * y + z, gradient(1), gradient(4), gradient(7)
    )
    close(outs[6], expected, rtol=1e-5)


def test_an_inner_count_counts_its_own_runs():
    inner = chain(ema(0.9), debias(0.9))
    outs, _ = run(flow(lambda g: g >> every(3, inner)), steps=4)
    close(outs[0], gradient(1), rtol=1e-5)
    mean = jax.tree.map(lambda x, y: (0.09 * x + 0.1 * y) / 0.19, gradient(1), gradient(4))
    close(outs[3], mean, rtol=1e-5)


def test_it_costs_nothing_in_between():
    """What is inside runs only in a branch of a cond."""
    opt = flow(lambda g: g >> every(3, flow(lambda g: lift(jnp.sin)(g) >> ema(0.9))))
    jaxpr = jax.make_jaxpr(opt.update)(ONE, opt.init(ONE))
    outside = {str(eqn.primitive) for eqn in jaxpr.eqns}
    assert "cond" in outside
    assert "sin" not in outside
    assert " sin " in str(jaxpr)


def test_an_output_that_the_state_holds_anyway_is_not_stored_twice():
    held = flow(lambda g: g >> every(3, ema(0.9))).init(PARAMS)
    assert sum(x.size for x in jax.tree.leaves(held)) == 7 + 1
    beside = flow(lambda g: g >> every(3, chain(ema(0.9), optax.scale(2.0)))).init(PARAMS)
    assert sum(x.size for x in jax.tree.leaves(beside)) == 14 + 1


def test_a_held_output_of_another_shape():
    gram = flow(lambda g: lift(lambda x: jnp.outer(x, x), "gram")(g))

    def step(g):
        matrix = g >> named("matrix", every(2, gram))
        return lift(jnp.matmul)(matrix, g)

    params = {"a": PARAMS["a"]}
    outs, state = run(flow(step), steps=2, params=params)
    g1, g2 = (np.asarray(gradient(t, params)["a"]) for t in (1, 2))
    np.testing.assert_allclose(outs[1]["a"], np.outer(g1, g1) @ g2, rtol=1e-5)
    assert state.matrix.output["a"].shape == (3, 3)


def test_when_holds_or_rests():
    def step(g, value):
        return g >> when(value > 0, optax.trace(0.5))

    def resting(g, value):
        return g >> when(value > 0, optax.trace(0.5), otherwise=0.0)

    for build, idle in ((step, 1.0), (resting, 0.0)):
        opt = flow(build)
        state, seen = opt.init(ONE), []
        for value in (1.0, -1.0, 1.0):
            out, state = opt.update({"a": jnp.ones(1)}, state, ONE, value=value)
            seen.append(float(out["a"][0]))
        assert seen == [1.0, idle, 1.5]


def of_ones(opt, steps):
    """What a transformation gives for gradients of 1."""
    state, seen = opt.init(ONE), []
    for _ in range(steps):
        out, state = opt.update({"a": jnp.ones(1)}, state, ONE)
        seen.append(int(out["a"][0]))
    return seen


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [1, 2, 3, 1, 2, 3, 1]),
        ({"phase": 0}, [1, 2, 1, 2, 3, 1, 2]),
        ({"start": 5}, [1, 2, 3, 4, 5, 6, 1]),
    ],
)
def test_reset_every(arguments, expected):
    assert of_ones(reset_every(3, trace(1.0), **arguments), 7) == expected


@pytest.mark.parametrize("inner", [optax.trace(1.0), chain(optax.identity(), optax.trace(1.0))])
def test_reset_of_a_foreign_transformation(inner):
    assert of_ones(reset_every(3, inner), 7) == [1, 2, 3, 1, 2, 3, 1]


def test_a_reset_of_what_keeps_nothing():
    """Beside a momentum, a cell that checks that the params lie on their manifold."""
    start, g = jnp.array([0.6, 0.8]), jnp.array([1.0, -2.0])
    opt = rsgd(0.1, sphere(), momentum=0.9, momentum_init="zeros")
    restarted = reset_every(2, opt)
    state, fresh = restarted.init(start), opt.init(start)
    seen = []
    for _ in range(3):
        updates, state = restarted.update(g, state, start)
        seen.append(updates)
    np.testing.assert_array_equal(seen[2], opt.update(g, fresh, start)[0])
    assert not np.allclose(seen[1], seen[2])


def test_a_foreign_count_goes_on_over_a_reset_or_starts_anew():
    counting = optax.scale_by_schedule(lambda count: count + 1.0)

    def restarting(restart):
        def step(g):
            return g >> reset_when(step_count() == 3, counting, restart_count=restart)

        return flow(step)

    for restart, expected in ((False, [1, 2, 3, 4]), (True, [1, 2, 1, 2])):
        assert of_ones(restarting(restart), 4) == expected


def test_the_count_goes_on_over_a_reset_or_starts_anew():
    counting = flow(lambda g: 0 * g + step_count() + 0 * (g >> trace(1.0)))

    def restarting(restart):
        def step(g):
            due = lift(lambda t: t == 3)(step_count())
            return g >> reset_when(due, counting, restart_count=restart)

        return flow(step)

    for restart, expected in ((False, [1, 2, 3, 4]), (True, [1, 2, 1, 2])):
        outs, _ = run(restarting(restart), steps=4, params=ONE)
        assert [int(out["a"][0]) for out in outs] == expected


def test_scheduled_state_names_of_a_reset_flow_are_its_own():
    state = reset_every(3, flow(lambda g: g >> named("mu", ema(0.9)))).init(PARAMS)
    assert jax.tree.structure(optax.tree.get(state, "mu")) == jax.tree.structure(PARAMS)


@pytest.mark.parametrize("arguments", [{"k": 0}, {"k": 2.5}, {"k": 2, "phase": -1}])
def test_periods_are_checked(arguments):
    with pytest.raises(FlowError, match=r"every: (k|phase)="):
        every(inner=optax.identity(), **arguments)


def test_random_draws_inside_a_flow_that_does_not_count():
    drawn = random_scaling(optax.identity(), sampler=lambda key, count, params: count + 1.0)
    assert of_ones(weight_prediction(drawn, prediction_steps=0), 3) == [1, 3, 6]


def test_taps_and_random_draws_inside_follow_the_outer_step():
    """A sampler inside a held node is told the number of the outermost step."""
    from gradchain.transforms import draw_like

    def sampler(key, count, params):
        return jax.tree.map(lambda x: jnp.full(x.shape, count, x.dtype), params)

    noise = flow(lambda g: tap("noise", draw_like(g, 0, sampler=sampler)))
    outs, _ = run(flow(lambda g, params: g * 0 + (params >> every(3, noise))), 4, params=ONE)
    assert [int(out["a"][0]) for out in outs] == [0, 0, 0, 3]


def counts(g):
    """Its runs, and the steps of the outermost flow."""
    return 0 * g + step_count() + 100 * step_count(outermost=True)


@pytest.mark.parametrize(
    "held",
    [
        lambda: every(3, flow(counts)),
        lambda: flow(lambda g: g >> when(step_count() % 3 == 1, flow(counts))),
        lambda: flow(lambda g, value: g >> when(value > 0, flow(counts))),
        lambda: flow(lambda g, value: g >> when(value > 0, chain(flow(counts)))),
        lambda: flow(lambda g, value: g >> when(value > 0, every(1, flow(counts)))),
        lambda: chain(every(3, every(1, flow(counts)))),
        lambda: every(3, flow(lambda g: g >> reset_when(step_count() < 0, flow(counts)))),
    ],
)
def test_runs_and_steps_are_both_counted(held):
    """Also where nothing else in the outer flow counts."""
    opt, seen = held(), []
    state = opt.init(ONE)
    for t in range(1, 8):
        extra = {"value": float(t % 3 == 1)}
        out, state = opt.update(ONE, state, ONE, **extra)
        seen.append(int(out["a"][0]))
    assert seen == [101, 101, 101, 402, 402, 402, 703]


def test_a_restarted_count_and_the_step_of_the_loop():
    restarting = flow(
        lambda g: g >> reset_when(step_count() == 3, flow(counts), restart_count=True)
    )
    assert of_ones(restarting, 4) == [101, 202, 301, 402]


def test_alone_both_counts_are_the_same():
    assert of_ones(flow(counts), 3) == [101, 202, 303]
