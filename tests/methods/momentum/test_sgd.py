"""SGD in its forms of momentum, and SGDW."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.optimizers import sgd, sgdw
from trajectories import assert_close, gradients, run, transcribed, tree

MOMENTUM = 0.8


def RATE(count):  # noqa: N802
    return 0.1 - 0.09 * jnp.minimum(count, 6) / 6


def rate(t):
    return 0.1 - 0.09 * min(t - 1, 6) / 6


def direction(t, g, memory, form, nesterov, dampening=0.0):
    d = MOMENTUM
    if form == "heavy_ball":
        memory["b"] = g if t == 1 else d * memory["b"] + (1 - dampening) * g
        return g + d * memory["b"] if nesterov else memory["b"]
    memory["b"] = d * memory.get("b", 0) + (1 - d) * g
    if form == "ema":
        return d * memory["b"] + (1 - d) * g if nesterov else memory["b"]
    if not nesterov:
        return memory["b"] / (1 - d**t)
    return d * memory["b"] / (1 - d ** (t + 1)) + (1 - d) * g / (1 - d**t)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("form", ["heavy_ball", "ema", "debiased"])
def test_forms_of_momentum(form, nesterov):
    def rule(t, g, x, memory):
        return x - rate(t) * direction(t, g + 0.3 * x, memory, form, nesterov)

    params, grads = tree(), gradients(8)
    opt = sgd(RATE, MOMENTUM, nesterov, form, weight_decay=0.3)
    assert_close(run(opt, params, grads), transcribed(rule, params, grads))


@pytest.mark.parametrize("decouple_lr", [False, True])
def test_sgdw(decouple_lr):
    mask = {"b": False, "s": True, "w": True}

    def step(name):
        def rule(t, g, x, memory):
            u = direction(t, g, memory, "heavy_ball", True, 0.4)
            shape = rate(t) / 0.1 if decouple_lr else rate(t)
            return x - rate(t) * u - shape * 0.05 * x * mask[name]

        return rule

    params, grads = tree(), gradients(8)
    wanted = [
        {**a, **b}
        for a, b in zip(
            transcribed(step("b"), {"b": params["b"]}, grads),
            transcribed(step("w"), {k: params[k] for k in "sw"}, grads),
            strict=True,
        )
    ]
    opt = sgdw(RATE, MOMENTUM, True, 0.4, 0.05, mask, decouple_lr)
    assert_close(run(opt, params, grads), wanted)


def test_no_momentum_keeps_no_buffer():
    params = {"w": np.ones(3, np.float32)}
    for opt in (sgd(0.1), sgd(0.1, None), sgdw(0.1, 0.0)):
        assert not jax.tree.leaves(opt.init(params))


def test_relative_decay_of_a_warm_up_needs_a_base():
    def warm_up(count):
        return 0.1 * jnp.minimum(count, 3) / 3

    with pytest.raises(ValueError, match="starts at 0"):
        sgdw(warm_up, decouple_lr=True)
    params = {"w": np.ones(1)}
    opt = sgdw(warm_up, 0.0, weight_decay=0.5, decouple_lr=True, base_learning_rate=0.1)
    moved = run(opt, params, [{"w": np.zeros(1)}] * 4)
    assert_close(moved, [{"w": np.ones(1)}, *({"w": np.array([f])} for f in F)])


F = np.cumprod([1 - 0.5 / 3, 1 - 1.0 / 3, 1 - 0.5])
