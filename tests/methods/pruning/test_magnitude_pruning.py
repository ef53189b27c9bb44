"""Pruning by magnitude: counts, what stays, ties, and leaves that find their own shares."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import schedules
from gradchain.optimizers import magnitude_pruning, sgd
from subjects import equations

RNG = np.random.default_rng(3)
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32),
    "u": jnp.asarray(0.1 * RNG.normal(size=(2, 3, 5)), jnp.float32),
    "b": jnp.asarray(RNG.normal(size=4), jnp.float32),
}
SCHEDULE = schedules.sparsity_schedule(0.8, total_steps=20, update_interval=2)


def trained(opt, steps):
    """Params after every step, on gradients that would move every entry."""
    params, state, seen = PARAMS, opt.init(PARAMS), []
    update = jax.jit(opt.update)
    for step in range(steps):
        grads = jax.tree.map(lambda x, t=step: jnp.cos(100 * x + t), PARAMS)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_counts_follow_the_schedule_and_zeros_stay(scope):
    seen = trained(magnitude_pruning(sgd(0.05, momentum=0.9), SCHEDULE, scope), 20)
    groups = [["w"], ["u"]] if scope == "layer" else [["w", "u"]]
    for step, params in enumerate(seen):
        for group in groups:
            leaves = [np.asarray(params[name]) for name in group]
            size = sum(leaf.size for leaf in leaves)
            zeros = sum(int(np.sum(leaf == 0)) for leaf in leaves)
            assert zeros == np.floor(np.float32(SCHEDULE(step)) * np.float32(size))
        assert np.all(params["b"] != 0)
    for before, after in itertools.pairwise(seen):
        for name in ("w", "u"):
            assert np.all(np.asarray(after[name])[np.asarray(before[name]) == 0] == 0)
    if scope == "global":  # the small leaf pays for the large one
        assert np.mean(np.asarray(seen[-1]["u"]) == 0) > np.mean(np.asarray(seen[-1]["w"]) == 0)


def test_the_smallest_go_and_ties_in_order():
    opt = magnitude_pruning(optax.sgd(0.0), 0.5)
    x = jnp.array([[1.0, -1.0, 1.0], [0.5, 2.0, -1.0]])
    updates, state = opt.update(jnp.ones((2, 3)), opt.init(x), x)
    assert (x + updates).tolist() == [[0.0, 0.0, 1.0], [0.0, 2.0, -1.0]]
    assert state.pruned.nbytes == x.size


def test_the_inner_optimizer_sees_no_gradient_of_what_is_pruned():
    opt = magnitude_pruning(optax.trace(0.5), 0.5, select={"w": True, "b": False})
    x = {"w": jnp.array([1.0, 2.0]), "b": jnp.array([1.0, 2.0])}
    _, state = opt.update(x, opt.init(x), x)
    trace = state.trace.trace
    assert trace["w"].tolist() == [0.0, 2.0]
    assert trace["b"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_nothing_is_sought_while_the_sparsity_stays(scope):
    opt = magnitude_pruning(sgd(0.05), SCHEDULE, scope)
    params = {str(i): jnp.zeros((6, 6 + 20 * (i % 2))) for i in range(40)}  # sorted, and counted
    program = jax.make_jaxpr(opt.update)(params, opt.init(params), params)
    seeking = {"sort", "while", "scan"}
    always = {eqn.primitive.name for eqn in equations(program.jaxpr, but={"cond"})}
    whenever = {eqn.primitive.name for eqn in equations(program.jaxpr)}
    assert not always & seeking
    assert whenever & seeking
