"""Flows under jit, vmap, scan, grad, eval_shape, donation, Optax's wrappers, and on a mesh."""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flows import PARAMS, close, gradient, run
from gradchain import chain, flow, named
from gradchain.transforms import (
    debias,
    decay_weights,
    delay,
    ema,
    every,
    global_norm,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    square,
    trace,
    transformation,
)


@transformation()
def everything(learning_rate: optax.ScalarOrSchedule, b1=0.9, b2=0.99, eps=1e-6):
    """A flow with averages, a held node, params, a scalar delay, a foreign node and a schedule."""

    def step(g, params):
        m = g >> ema(b1) >> debias(b1)
        v = square(g) >> named("nu", ema(b2))
        held = g >> every(2, chain(optax.scale_by_rms(), ema(0.5)))
        norm = delay(1.0, name="norm")
        norm << 0.9 * norm + 0.1 * global_norm(g)
        u = (m + held) / (sqrt(v >> debias(b2)) + eps) / norm + 0.01 * params
        return u >> scale_by_learning_rate(learning_rate)

    return flow(step)


OPT = everything(0.1)


def loop(opt, params, steps, start=1):
    state = opt.init(params)
    for t in range(start, start + steps):
        updates, state = opt.update(gradient(t, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_jit_equals_running_op_by_op():
    with jax.disable_jit():
        slow = loop(OPT, PARAMS, 2)
    params, state = PARAMS, OPT.init(PARAMS)
    update = jax.jit(OPT.update)
    for t in (1, 2):
        updates, state = update(gradient(t), state, params)
        params = optax.apply_updates(params, updates)
    close((params, state), slow, rtol=1e-5)
    assert update._cache_size() == 1


def test_scan_and_vmap_equal_the_loop():
    grads = jax.tree.map(lambda *g: jnp.stack(g), *(gradient(t) for t in (1, 2, 3)))

    def train(params):
        def body(carry, g):
            params, state = carry
            updates, state = OPT.update(g, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, OPT.init(params)), grads)[0]

    starts = jax.tree.map(lambda x: jnp.stack([x, -x]), PARAMS)
    both = jax.jit(jax.vmap(train))(starts)
    close(jax.tree.map(lambda x: x[0], both), loop(OPT, PARAMS, 3), rtol=1e-4, atol=1e-6)


def test_vmap_over_a_learning_rate_compiles_once():
    """A traced hyper-parameter is a constant of the graph like any other."""

    def first(rate):
        opt = everything(rate)
        return opt.update(gradient(1), opt.init(PARAMS), PARAMS)[0]

    rates = jnp.array([0.1, 0.2])
    outs = jax.jit(jax.vmap(first))(rates)
    close(jax.tree.map(lambda x: x[1], outs), first(0.2), rtol=1e-5)


def test_gradient_through_the_update():
    def after(g):
        updates, _ = trace_opt.update(g, trace_opt.init(PARAMS), PARAMS)
        return sum(jnp.sum(u**2) for u in jax.tree.leaves(updates))

    trace_opt = chain(trace(0.9), optax.scale(3.0))
    close(jax.grad(after)(PARAMS), jax.tree.map(lambda x: 18 * x, PARAMS))


def test_eval_shape_agrees_with_running():
    _, state = run(OPT, steps=1)
    abstract = jax.eval_shape(OPT.update, gradient(1), OPT.init(PARAMS), PARAMS)[1]
    same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, abstract, state)
    assert all(jax.tree.leaves(same))


@pytest.mark.filterwarnings("ignore:Some donated buffers")
def test_donation_of_params_state_and_gradients():
    def own(tree):
        return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)

    params, state = own(PARAMS), OPT.init(PARAMS)

    def step(g, state, params):
        updates, state = OPT.update(g, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1, 2))
    for t in (1, 2):
        params, state = step(gradient(t), state, params)
    close((params, state), loop(OPT, PARAMS, 2), rtol=1e-5)


def test_injected_hyperparameters_change_without_recompiling():
    opt = gradchain.inject_hyperparams(everything)(learning_rate=0.1)
    state = opt.init(PARAMS)
    assert {"learning_rate", "b1", "b2", "eps"} <= set(state.hyperparams)
    update = jax.jit(opt.update)
    first, _ = update(gradient(1), state, PARAMS)
    close(first, run(OPT, 1)[0][0], rtol=1e-5)
    state.hyperparams["learning_rate"] = jnp.asarray(0.2, jnp.float32)
    doubled, _ = update(gradient(1), state, PARAMS)
    close(doubled, jax.tree.map(lambda x: 2 * x, first), rtol=1e-5)
    assert update._cache_size() == 1


def test_masked_and_partition():
    masked = optax.masked(OPT, {"a": True, "b": False})
    updates, _ = masked.update(gradient(1), masked.init(PARAMS), PARAMS)
    inner = {"a": PARAMS["a"]}
    expected, _ = OPT.update({"a": gradient(1)["a"]}, OPT.init(inner), inner)
    np.testing.assert_allclose(updates["a"], expected["a"], rtol=1e-6)
    np.testing.assert_allclose(updates["b"]["c"], gradient(1)["b"]["c"])
    parts = optax.partition({"x": OPT, "y": optax.sgd(1.0)}, {"a": "x", "b": "y"})
    updates, _ = parts.update(gradient(1), parts.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["a"], expected["a"], rtol=1e-6)
    np.testing.assert_allclose(updates["b"]["c"], -gradient(1)["b"]["c"])


def test_multi_steps_runs_on_the_mean_gradient():
    opt = optax.MultiSteps(chain(trace(0.9)), every_k_schedule=2)
    state = opt.init(PARAMS)
    for t in (1, 2):
        updates, state = opt.update(gradient(t), state, PARAMS)
    close(updates, jax.tree.map(lambda x, y: (x + y) / 2, gradient(1), gradient(2)))


def test_on_a_mesh_of_eight_devices():
    """State is sharded like the params from init on, and the numbers are those of one device."""
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x", "y"))
    plain = {"w": jnp.arange(32.0).reshape(8, 4) / 10, "v": jnp.arange(16.0).reshape(4, 4)}
    params = jax.device_put(plain, spread)
    opt = chain(optax.clip_by_global_norm(1.0), OPT)
    state = jax.jit(opt.init)(params)
    update = jax.jit(opt.update)
    expected = opt.init(plain)
    for t in (1, 2):
        g = gradient(t, plain)
        updates, state = update(jax.device_put(g, spread), state, params)
        wanted, expected = opt.update(g, expected, plain)
        assert updates["w"].sharding.is_equivalent_to(spread, 2)
        close(updates, wanted, rtol=1e-5)
    close(state, expected, rtol=1e-5)


def test_float64_and_mixed_dtypes():
    with jax.enable_x64(True):
        params = {"a": jnp.ones(3, jnp.float64), "b": jnp.ones(2, jnp.float32)}
        opt = everything(optax.linear_schedule(0.1, 0.0, 10))
        updates, state = opt.update(params, opt.init(params), params)
        assert {k: v.dtype.name for k, v in updates.items()} == {"a": "float64", "b": "float32"}
        assert {k: v.dtype.name for k, v in state.nu.items()} == {"a": "float64", "b": "float32"}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_accumulates_in_float32(dtype):
    """An average with decay 0.999 in bfloat16 would not move at all."""
    params = {"a": jnp.ones(3, dtype)}
    opt = chain(ema(0.999))
    state = opt.init(params)
    for _ in range(5):
        updates, state = opt.update(params, state, params)
    assert updates["a"].dtype == dtype
    np.testing.assert_allclose(state.ema["a"], 1 - 0.999**5, rtol=1e-5)


def test_params_only_where_they_are_used():
    with pytest.raises(ValueError, match="params"):
        chain(decay_weights(0.1, "decoupled")).update(
            PARAMS, chain(decay_weights(0.1, "decoupled")).init(PARAMS)
        )
    opt = chain(decay_weights(0.0), decay_weights(0.0, "decoupled"), scale_by_learning_rate(1.0))
    close(opt.update(PARAMS, opt.init(PARAMS))[0], jax.tree.map(jnp.negative, PARAMS))


def test_a_size_that_is_injected_as_an_array_is_refused_by_name():
    opt = optax.inject_hyperparams(gradchain.optimizers.galore)(0.1, rank=2)
    with pytest.raises(ValueError, match=r"galore: rank=.* sets a size .*static_args"):
        opt.init(PARAMS)
    opt = optax.inject_hyperparams(gradchain.optimizers.galore, static_args=("rank",))(0.1, rank=2)
    opt.init(PARAMS)


def test_arrays_of_numpy_in_a_flow_are_as_precise_as_each_run():
    """JAX keeps the precision in which it first saw one while a program that holds it lives."""
    weights = np.array([0.1, 0.3])

    def step(g):
        mean = delay(0 * weights)
        return g * scheduled(weights) + (mean << weights - 0.5 * mean)

    opt = flow(step)

    def ran(dtype):
        grads = jnp.ones(2, dtype)
        update = jax.jit(opt.update)
        return update, update(grads, opt.init(grads))

    with jax.enable_x64(False):
        alive, low = ran(jnp.float32)
    with jax.enable_x64(True):
        also_alive, high = ran(jnp.float64)
    for (updates, state), dtype in ((low, np.float32), (high, np.float64)):
        kept = np.concatenate([updates, *jax.tree.leaves(state)])
        assert kept.dtype == dtype
        assert kept.tolist() == np.array([0.2, 0.6, 0.1, 0.3], dtype).tolist()
    assert alive is not also_alive
