"""init never runs update, allocates nothing but the state, and starts nodes on their own shape."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flows import PARAMS
from gradchain import chain, flow, named
from gradchain.optimizers import adam, gravity
from gradchain.transforms import (
    FlowError,
    delay,
    draw_like,
    ema,
    every,
    lift,
    merge,
    project,
    split,
    svd_basis,
    unproject,
)
from gradchain.transforms.notation import matrices, placing


def recording(log):
    def init(params):
        log.append(("init", jax.tree.map(jnp.shape, params)))
        return {"total": jax.tree.map(jnp.zeros_like, params)}

    def update(updates, state, params=None):
        log.append(("update", None))
        return updates, state

    return optax.GradientTransformation(init, update)


def test_init_never_runs_update_nor_the_functions_of_arrays():
    log, runs = [], []

    def seen(x):
        if not isinstance(x, jax.core.Tracer):
            runs.append(x)
        return x

    opt = flow(lambda g: lift(seen)(g) >> recording(log))
    opt.init(PARAMS)
    assert [event for event, _ in log if event == "update"] == []
    assert runs == []


def test_init_of_the_arithmetic_allocates_nothing_but_the_state(monkeypatch):
    """The jaxpr of init has no array beside the outputs, however long the step."""

    def step(g, params):
        x = g
        for _ in range(20):
            x = x * 2 + params
        return (x >> ema(0.9)) + delay_of(x)

    def delay_of(x):
        past = delay(x, name="past")
        past << x
        return past

    monkeypatch.setattr(placing, "_may_move", lambda state: False)  # as on one device
    jaxpr = jax.make_jaxpr(flow(step).init)(PARAMS)
    assert {str(eqn.primitive) for eqn in jaxpr.eqns} <= {"broadcast_in_dim", "jit", "pjit"}
    assert len(jaxpr.eqns) <= 4


def test_a_node_on_params_shaped_signals_is_given_the_params():
    seen = []

    def init(params):
        seen.append(params)
        return {"x": jax.tree.map(jnp.zeros_like, params)}

    inner = optax.GradientTransformation(init, lambda u, s, p=None: (u, s))
    flow(lambda g: 2 * g >> inner).init(PARAMS)
    assert seen[-1]["a"] is PARAMS["a"]


def test_a_node_behind_a_projection_starts_on_zeros_of_that_shape():
    def step(g):
        wide, others = split(g, matrices)
        basis = wide >> every(5, svd_basis(1, "left"))
        low = project(basis, wide) >> named("low", optax.scale_by_adam())
        return merge(unproject(basis, low), others)

    state = flow(step).init(PARAMS)
    assert state.low.mu["b"]["c"].shape == (1, 2)
    assert isinstance(state.low.mu["a"], optax.MaskedNode)
    assert not jnp.any(state.low.mu["b"]["c"])


def test_a_shape_that_only_update_knows_is_an_error_that_says_so():
    opt = flow(lambda g, batch: g + lift(jnp.sum)(batch >> ema(0.9)), name="blind")
    with pytest.raises(FlowError, match="only known in update"):
        opt.init(PARAMS)


def test_delay_of_params_is_a_copy():
    def step(g, params):
        past = delay(params, name="past")
        past << params
        return g + past

    state = flow(step).init(PARAMS)
    assert jnp.array_equal(state.past["a"], PARAMS["a"])
    assert state.past["a"].unsafe_buffer_pointer() != PARAMS["a"].unsafe_buffer_pointer()


def test_abstract_params_give_an_abstract_state():
    opt = chain(optax.clip(1.0), adam(0.1))
    abstract = opt.init(jax.eval_shape(lambda: PARAMS))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(abstract))
    assert jax.tree.structure(abstract) == jax.tree.structure(opt.init(PARAMS))


def test_random_nodes_draw_nothing_at_the_start():
    opt = flow(lambda g: g + draw_like(g, key=3))
    names = {str(eqn.primitive) for eqn in jax.make_jaxpr(opt.init)(PARAMS).eqns}
    assert not names & {"random_bits", "random_fold_in", "random_split", "threefry2x32"}


def test_what_is_drawn_lies_as_the_params_do_where_the_compiler_chooses():
    """Outside `jax.jit`, on a mesh whose axes are not explicit."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.NamedSharding(mesh, jax.P("x"))
    params = jax.device_put(jnp.ones((8, 2)), spread)
    state = gravity(0.1).init(params)
    velocity = optax.tree.get(state, "velocity")
    assert velocity.sharding.is_equivalent_to(spread, velocity.ndim)
