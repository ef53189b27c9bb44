"""Hyper-parameters that are schedules, and their ranges."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flows import PARAMS, close, gradient, run
from gradchain import chain, flow
from gradchain.optimizers import adam
from gradchain.transforms import (
    DType,
    FlowError,
    Hyperparameter,
    Interval,
    Key,
    Mask,
    Positive,
    Size,
    debias,
    decay_weights,
    ema,
    scale_by_learning_rate,
    scheduled,
    step_count,
    transformation,
)

ONES = {"a": jnp.ones(1)}


def values(opt, steps=4):
    state, seen = opt.init(ONES), []
    for _ in range(steps):
        out, state = opt.update(ONES, state, ONES)
        seen.append(round(float(out["a"][0]), 6))
    return seen


def test_the_count_is_one_at_the_first_update_and_schedules_see_zero():
    assert values(flow(lambda g: g * step_count())) == [1, 2, 3, 4]
    assert values(flow(lambda g: g * scheduled(lambda t: t * 10.0))) == [0, 10, 20, 30]
    assert values(flow(lambda g: g * scheduled(lambda t: 1.0 * t, ahead=1))) == [1, 2, 3, 4]
    assert values(flow(lambda g: g * scheduled(7.0))) == [7, 7, 7, 7]


def test_learning_rate_schedules_equal_those_of_optax():
    schedule = optax.cosine_decay_schedule(0.3, 3)
    ours = chain(optax.scale_by_adam(), scale_by_learning_rate(schedule))
    close(run(ours, 4)[0], run(optax.adam(schedule), 4)[0])


def test_a_scheduled_decay_rate_of_an_average():
    opt = chain(ema(optax.piecewise_constant_schedule(0.5, {2: 0.0})))
    assert values(opt) == [0.5, 0.75, 1.0, 1.0]


def test_a_scheduled_weight_decay():
    opt = chain(decay_weights(lambda t: 1.0 * t))
    assert values(opt) == [1, 2, 3, 4]


def test_constant_rates_need_no_count():
    assert chain(ema(0.9), scale_by_learning_rate(0.1)).init(PARAMS)._fields == ("ema",)


def test_the_count_saturates():
    opt = chain(ema(0.9), debias(0.9))
    state = opt.init(ONES)._replace(count=jnp.asarray(2**31 - 1, jnp.int32))
    _, state = opt.update(ONES, state, ONES)
    assert int(state.count) == 2**31 - 1


class TestRanges:
    """Bad hyper-parameters are refused by name."""

    @pytest.mark.parametrize("value", [-0.1, 1.0, 7, float("nan"), True, "0.9"])
    def test_out_of_range(self, value):
        with pytest.raises(FlowError, match=r"adam: b1=.* in \[0, 1\)"):
            adam(0.1, b1=value)

    @pytest.mark.parametrize("value", [0, 0.5, jnp.asarray(0.5), np.float32(0.5), lambda t: 0.5])
    def test_in_range(self, value):
        ema(value)

    def test_traced_values_pass(self):
        out = jax.jit(lambda b: chain(ema(b)).update(ONES, chain(ema(b)).init(ONES))[0])(0.75)
        assert float(out["a"][0]) == 0.25

    def test_an_array_of_known_value_is_checked_too(self):
        with pytest.raises(FlowError, match=r"ema: decay=.*\[0, 1\)"):
            ema(jnp.asarray(1.0, jnp.bfloat16))

    def test_own_types(self):
        """An argument is what its annotation says, whatever its name."""

        @transformation()
        def mine(
            size: Positive,
            b1=0.0,
            decay: Annotated[Hyperparameter, Interval(1, 2)] = 1.5,
            kind: Literal["a", "b"] = "a",
            rank: Size = 4,
            flag: bool = True,
            mask: Mask | None = None,
            dtype: DType | None = None,
            key: Key = 0,
        ):
            return flow(lambda g: g * size)

        assert repr(mine(2.0, b1=-3)).startswith("mine(size=2.0, b1=-3, decay=1.5")
        for name, value, allowed in (
            ("size", 0, r"\(0, inf\]"),
            ("size", None, r"\(0, inf\]"),
            ("decay", 3, r"\[1, 2\]"),
            ("decay", jnp.ones(2), "shape"),
            ("kind", "x", "'a', 'b'"),
            ("rank", 1.5, "integer"),
            ("rank", jnp.asarray(3), "sets a size"),
            ("rank", lambda t: 3, "integer"),
            ("flag", "no", "True or False"),
            ("mask", jnp.asarray(1.0), "inject_hyperparams"),
            ("dtype", "int8", "floating"),
            ("dtype", "nonsense", "floating"),
            ("key", 0.5, "seed"),
        ):
            with pytest.raises(FlowError, match=rf"mine: {name}=(.|\s)*{allowed}"):
                mine(**{"size": 1.0, name: value})
        mine(lambda t: 0.0, decay=jnp.asarray(1.5), mask={"a": True}, dtype=jnp.bfloat16)

    def test_a_wrong_call_shows_the_arguments(self):
        with pytest.raises(TypeError, match=r"ema: .*its arguments are \(decay"):
            ema(0.9, wrong=1)


def test_gradient_of_several_steps_with_respect_to_a_rate():
    def last(rate):
        opt = chain(scale_by_learning_rate(rate))
        out, _ = opt.update(gradient(1), opt.init(PARAMS), PARAMS)
        return sum(jnp.sum(x) for x in jax.tree.leaves(out))

    total = sum(float(jnp.sum(x)) for x in jax.tree.leaves(gradient(1)))
    assert float(jax.grad(last)(0.3)) == pytest.approx(-total, rel=1e-5)
