"""What a graph shows to be finite is, and only there no guard against infinity stands."""

import re

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers as o
from gradchain.transforms import ema, flow, scale_by_adam, sqrt, square
from gradchain.transforms.notation import program
from gradchain.transforms.notation.foreign import owner_of
from samples import sample

PARAMS = {"w": jnp.array([[0.5, -1.0, 2.0], [0.0, 1.0, -3.0]]), "b": jnp.array([1.0, -1.0])}
LARGEST = float(jnp.finfo(jnp.float32).max)


def clamps(opt):
    """How often a step of it bounds a leaf."""
    state = jax.eval_shape(opt.init, PARAMS)
    return len(
        re.findall(r"stablehlo\.clamp", jax.jit(opt.update).lower(PARAMS, state, PARAMS).as_text())
    )


def test_nothing_is_guarded_in_what_is_bounded_by_its_mathematics():
    bounded = (o.adam(1e-3), o.adamw(1e-3), o.lion(1e-3), o.signum(1e-3))
    assert [clamps(opt) for opt in bounded] == [0] * 4


def test_a_sum_of_gradients_is_guarded():
    assert clamps(o.sgd(1e-3, momentum=0.9)) > 0


def test_by_cauchy_and_schwarz_the_squares_are_remembered_as_long():
    assert is_finite(scale_by_adam(0.9, 0.999))
    assert is_finite(scale_by_adam(0.9, 0.82))
    assert not is_finite(scale_by_adam(0.9, 0.8))
    assert not is_finite(scale_by_adam(optax.constant_schedule(0.9), 0.999))


def is_finite(opt):
    graph = owner_of(opt).graph
    return graph.bounds.is_finite(graph.output)


def test_the_average_of_other_squares_bounds_nothing():
    def of_others(g):
        return (g >> ema(0.9)) / (sqrt(square(2.0 * g) >> ema(0.999)) + 1e-8)

    assert not is_finite(flow(of_others))


def test_an_average_that_does_not_start_at_zero_is_not_bounded_by_its_squares():
    def from_afar(g):
        return (g >> ema(0.9, start=1e30)) / (sqrt(square(g) >> ema(0.999)) + 1e-8)

    assert not is_finite(flow(from_afar))


METHODS = ("adamw", "adan", "amsgrad", "demo", "lion", "mars", "nadam", "radam", "sgdw", "yogi")


@pytest.mark.parametrize("name", METHODS)
def test_what_is_known_to_be_finite_is(name, monkeypatch):
    opt, seen = sample(name), []
    plain = program.walk

    def watched(graph, incoming, stored, context):
        env = plain(graph, incoming, stored, context)
        bounds = graph.bounds if context.receives_finite else graph.bounds_within
        seen.append([env[i] for i in sorted(bounds.finite & env.keys())])
        return env

    monkeypatch.setattr(program, "walk", watched)
    state = opt.init(PARAMS)
    for sign in (1, -1, 1):
        grads = jax.tree.map(lambda p, sign=sign: sign * LARGEST / 3 * jnp.sign(p + 0.1), PARAMS)
        _, state = opt.update(grads, state, PARAMS)
    values = [jax.tree.leaves(getattr(v, "values", v)) for step in seen for v in step]
    arrays = [np.asarray(x) for found in values for x in found if hasattr(x, "dtype")]
    assert len(arrays) > 20
    assert all(np.isfinite(x).all() for x in arrays if x.dtype.kind == "f")


def test_what_another_flow_sends_may_be_infinite():
    large = flow(lambda g: 1e30 * g)
    inner = gradchain.masked(scale_by_adam(), True)
    opt = gradchain.chain(large, inner)
    state, params = opt.init(PARAMS), PARAMS
    for _ in range(3):
        updates, state = opt.update(jax.tree.map(lambda p: 1e20 * p, PARAMS), state, params)
        assert not any(np.isnan(x).any() for x in jax.tree.leaves((updates, state)))
