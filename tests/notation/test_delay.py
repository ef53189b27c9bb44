"""The unit delay: last step's value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flows import PARAMS, close, gradient, once, run
from gradchain import eval_params, flow
from gradchain.transforms import (
    FlowError,
    delay,
    ema,
    global_sum,
    sqrt,
    square,
    where,
)


def test_it_gives_the_value_of_the_step_before():
    def step(g):
        past = delay(g)
        past << g
        return past

    outs, _ = run(flow(step), steps=3)
    close(outs[0], jax.tree.map(jnp.zeros_like, PARAMS))
    close(outs[1], gradient(1))
    close(outs[2], gradient(2))


def test_two_delays_in_a_row():
    def step(g):
        last, before = delay(g), delay(g)
        last << g
        before << last
        return before

    outs, _ = run(flow(step), steps=4)
    close(outs[3], gradient(2))


def test_two_delays_may_be_exchanged():
    """All delays are read before any is written."""

    def step(g):
        x, y = delay(1.0, name="x"), delay(2.0, name="y")
        x << y
        y << x
        return 0 * g + 10 * x + y

    outs, _ = run(flow(step), steps=3)
    assert [float(out["a"][0]) for out in outs] == [12.0, 21.0, 12.0]


def test_shift_binds_looser_than_arithmetic_and_returns_what_was_written():
    def step(g):
        past = delay(g)
        return past << 0.5 * past + g

    outs, _ = run(flow(step), steps=2)
    close(outs[1], jax.tree.map(lambda x, y: 0.5 * x + y, gradient(1), gradient(2)))


def test_start_value_for_every_entry():
    def step(g):
        past = delay(g, 3.0)
        past << past
        return past

    close(once(flow(step), PARAMS), jax.tree.map(lambda x: jnp.full_like(x, 3.0), PARAMS))


@pytest.mark.parametrize(("start", "dtype"), [(0, "int32"), (1.5, "float32"), (True, "int32")])
def test_a_scalar(start, dtype):
    def step(g):
        past = delay(start, name="past")
        past << past
        return g * past

    state = flow(step).init(PARAMS)
    assert state.past.shape == ()
    assert state.past.dtype == dtype
    assert state.past == start


def test_a_scalar_that_follows_the_gradients():
    def step(g):
        total = delay(0.0, name="total")
        return g / sqrt(total << total + global_sum(square(g)))

    _, state = run(flow(step), steps=3)
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient(t))]) for t in (1, 2, 3)]
    assert float(state.total) == pytest.approx(sum(float(x @ x) for x in flat), rel=1e-6)


def test_of_the_params_it_starts_at_the_params():
    def step(g, params):
        origin = delay(params, name="origin")
        origin << origin
        return params - origin

    close(once(flow(step), PARAMS), jax.tree.map(jnp.zeros_like, PARAMS))


def test_an_inner_delay_of_its_own_update_starts_at_zero_even_on_the_params():
    outs, _ = run(flow(lambda g, params: 0 * g + (params >> ema(0.5))), steps=2)
    close(outs[1], jax.tree.map(lambda x: 0.75 * x, PARAMS))


def test_storage_dtype():
    def step(g):
        past = delay(g, dtype=jnp.bfloat16)
        past << past + g
        return past

    opt = flow(step)
    _, state = run(opt, steps=2)
    kept = [leaf for leaf in jax.tree.leaves(state) if jnp.ndim(leaf)]  # beside the step count
    assert {leaf.dtype for leaf in kept} == {jnp.dtype(jnp.bfloat16)}


def test_half_precision_is_stored_in_float32():
    def step(g):
        past = delay(g)
        return past << past + g

    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    assert {leaf.dtype for leaf in jax.tree.leaves(flow(step).init(low))} == {jnp.dtype("float32")}


def test_never_closed():
    def step(g):
        return g + delay(g, name="past")

    with pytest.raises(FlowError, match=r"open: delay `past` \(test_delay.py:\d+\) is never"):
        flow(step, name="open")


def test_closed_twice():
    def step(g):
        past = delay(g, name="past")
        past << g
        past << 2 * g
        return past

    with pytest.raises(FlowError, match="closed twice"):
        flow(step)


def test_only_a_delay_is_closed():
    with pytest.raises(FlowError, match="closes a delay"):
        flow(lambda g: (2 * g) << g)


def test_a_written_value_of_another_shape_is_refused():
    from gradchain.transforms import lift

    def step(g):
        past = delay(g, name="past")
        past << lift(jnp.sum)(g)
        return past

    with pytest.raises(FlowError, match=r"delay `past` holds shape \(3,\), written \(\)"):
        once(flow(step), PARAMS)


def test_a_constant_may_be_written():
    def step(g):
        first = delay(1.0, name="first")
        first << 0.0
        return where(first > 0, g, -g)

    outs, _ = run(flow(step), steps=2)
    close(outs[0], gradient(1))
    close(outs[1], jax.tree.map(jnp.negative, gradient(2)))


def test_evaluation_weights_of_a_flow_and_of_wrapped_states():
    def averaging():
        def step(g, params):
            mean = delay(params, name="mean", evaluation=(0.5, 0.5))
            mean << mean + 1.0
            return g

        return flow(step)

    import optax
    from gradchain import chain

    expected = jax.tree.map(lambda x: 0.5 * (x + 1) + 0.5 * x, PARAMS)
    for opt in (averaging(), chain(optax.clip(9.0), averaging()), optax.chain(averaging())):
        _, state = run(opt, steps=1)
        close(eval_params(state, PARAMS), expected)
    assert eval_params(optax.sgd(0.1).init(PARAMS), PARAMS) is PARAMS
