"""Adam and what differs from it by an eps, a sign, a mask or an order."""

import itertools

import numpy as np
import optax
import pytest
from gradchain.optimizers import (
    adabelief,
    adam,
    adamw,
    c_adamw,
    c_lion,
    cautious,
    grams,
    laprop,
    scale_by_adam,
    sign_of_gradient,
)
from gradchain.transforms.accumulate import radam_rectification
from trajectories import assert_close, average, gradients, run, transcribed, tree

B1, B2 = 0.7, 0.9
RATE = optax.piecewise_constant_schedule(0.1, {2: 0.5, 5: 0.0})


def rate(t):
    return 0.1 if t - 1 < 2 else 0.05 if t - 1 < 5 else 0.0


def moments(g, memory):
    return average(memory, "m", B1, g), average(memory, "v", B2, g * g)


def check(opt, rule, steps=8, seed=0):
    params, grads = tree(seed), gradients(steps, seed + 1)
    grads[3]["b"] = np.zeros(4)
    assert_close(run(opt, params, grads), transcribed(rule, params, grads))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decouple_lr", [False, True])
def test_adamw(nesterov, decouple_lr):
    def rule(t, g, x, memory):
        m, v = moments(g, memory)
        mhat = m / (1 - B1**t)
        if nesterov:
            mhat = B1 * m / (1 - B1 ** (t + 1)) + (1 - B1) * g / (1 - B1**t)
        u = mhat / (np.sqrt(v / (1 - B2**t) + 0.02) + 0.01)
        shape = rate(t) / 0.1 if decouple_lr else rate(t)
        return x - rate(t) * u - shape * 0.3 * x

    opt = adamw(RATE, B1, B2, 0.01, 0.02, None, 0.3, nesterov=nesterov, decouple_lr=decouple_lr)
    check(opt, rule)


@pytest.mark.parametrize(
    ("correct", "before", "amsgrad"), itertools.product([False, True], repeat=3)
)
def test_adam_direction_and_its_eps(correct, before, amsgrad):
    def rule(t, g, x, memory):
        m, v = moments(g, memory)
        if amsgrad:
            v = memory["x"] = np.maximum(memory.get("x", 0), v)
        c1, c2 = (1 - B1**t, 1 - B2**t) if correct else (1, 1)
        root = (np.sqrt(v) + 0.05) / np.sqrt(c2) if before else np.sqrt(v / c2) + 0.05
        return x + m / c1 / root

    opt = scale_by_adam(
        B1, B2, 0.05, amsgrad=amsgrad, bias_correction=correct, eps_before_correction=before
    )
    check(opt, rule)


def test_adam_without_eps_leaves_untouched_entries_alone():
    params = {"w": np.ones(2)}
    moved = run(adam(0.1, eps=0.0), params, [{"w": np.array([0.0, 1.0])}] * 3)
    assert moved[-1]["w"][0] == 1.0
    assert np.isfinite(moved[-1]["w"]).all()


@pytest.mark.parametrize("decay", ["decoupled", "fixed", "coupled"])
@pytest.mark.parametrize("rectify", [None, "sgd", "silent"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adabelief(decay, rectify, amsgrad):
    eps, w = 1e-3, 0.1

    def rule(t, g, x, memory):
        if decay == "coupled":
            g = g + w * x
        m = average(memory, "m", B1, g)
        s = memory["s"] = B2 * memory.get("s", 0) + (1 - B2) * (g - m) ** 2 + eps
        largest = memory["x"] = np.maximum(memory.get("x", 0), s) if amsgrad else s
        mhat, c2 = m / (1 - B1**t), 1 - B2**t
        n_inf = 2 / (1 - B2) - 1
        n = n_inf - 2 * t * B2**t / c2
        if rectify is None:
            u = mhat / (np.sqrt(largest) / np.sqrt(c2) + eps)
        elif n >= 5:
            r2 = c2 * (n - 4) / (n_inf - 4) * (n - 2) / n * n_inf / (n_inf - 2)
            u = np.sqrt(r2) * mhat / (np.sqrt(s) + eps)
        else:
            u = mhat if rectify == "sgd" else 0
        shrink = {"decoupled": rate(t) * w, "fixed": w, "coupled": 0}[decay]
        return x - shrink * x - rate(t) * u

    opt = adabelief(
        RATE,
        B1,
        B2,
        eps,
        w,
        weight_decouple=decay != "coupled",
        fixed_decay=decay == "fixed",
        rectify=rectify is not None,
        degenerated_to_sgd=rectify == "sgd",
        amsgrad=amsgrad,
    )
    check(opt, rule, steps=9)


@pytest.mark.parametrize("b2", [0.5, 0.6, 0.999, 0.99999])
def test_rectification(b2):
    from gradchain.transforms import flow

    opt = flow(lambda g: g * 0 + radam_rectification(b2).length)
    zero = {"w": np.zeros(1)}
    lengths = run(opt, zero, [zero] * 12, look=lambda state, params: params)
    got = np.diff([0.0, *(float(x["w"][0]) for x in lengths)])
    t = np.arange(1, 13, dtype=np.longdouble)
    b = np.longdouble(b2)
    wanted = 2 / (1 - b) - 1 - 2 * t * b**t / (1 - b**t)
    np.testing.assert_allclose(got, wanted.astype(float), rtol=1e-7)


def test_rectification_finds_the_threshold_in_float32():
    import jax
    import jax.numpy as jnp
    from gradchain.transforms import flow

    opt = flow(lambda g: g * 0 + radam_rectification(0.99999).length)
    state = opt.init(jnp.zeros(1))
    update = jax.jit(opt.update)
    for _ in range(5):
        length, state = update(jnp.zeros(1), state)
    assert 4.9999 < float(length[0]) < 5


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_laprop(centered, amsgrad):
    eps, w, start = 1e-3, 0.1, 3

    def rule(t, g, x, memory):
        v = average(memory, "v", B2, g * g)
        a = average(memory, "a", B1, rate(t))
        k = a / rate(t) if rate(t) else 1.0
        d = v
        if centered:
            mu = average(memory, "mu", B2, g)
            d = np.maximum(v - mu**2, 0) if t > start else v
        if amsgrad and not (centered and t <= start):
            d = memory["x"] = np.maximum(memory.get("x", 0), d)
        u = g / (np.sqrt(d / (1 - B2**t)) + eps)
        m = average(memory, "m", B1, rate(t) * u)
        return (1 - w) * (x - m / k)

    check(laprop(RATE, B1, B2, eps, w, None, centered, amsgrad, start), rule)


@pytest.mark.parametrize("correct", [False, True])
def test_grams(correct):
    def rule(t, g, x, memory):
        m, v = moments(g, memory)
        c = np.sqrt(1 - B2**t) / (1 - B1**t) if correct else 1
        return x * (1 - rate(t) * 0.2) - rate(t) * c * np.sign(g) * abs(m) / (np.sqrt(v) + 0.01)

    check(grams(RATE, B1, B2, 0.01, 0.2, None, correct), rule)


def test_grams_is_the_wrapper_around_adam():
    params, grads = tree(), gradients(6)
    wrapped = sign_of_gradient(optax.adam(0.1, B1, B2, 1e-15))
    assert_close(
        run(grams(0.1, B1, B2, 1e-15), params, grads), run(wrapped, params, grads), rtol=1e-12
    )


def scaled(keep, scale, least):
    if scale == "mean":
        return keep / max(np.mean(keep), least)
    return keep * keep.size / (keep.sum() + 1) if scale == "count" else keep


@pytest.mark.parametrize("scale", ["mean", "count", None])
@pytest.mark.parametrize("correct", [False, True])
def test_c_adamw(scale, correct):
    def rule(t, g, x, memory):
        m, v = moments(g, memory)
        c = np.sqrt(1 - B2**t) / (1 - B1**t) if correct else 1
        keep = scaled(np.asarray(m * g > 0, float), scale, 0.4)
        return x * (1 - rate(t) * 0.2) - rate(t) * c * keep * m / (np.sqrt(v) + 0.01)

    check(c_adamw(RATE, B1, B2, 0.01, 0.2, None, correct, scale, 0.4), rule)


@pytest.mark.parametrize("scale", ["mean", "count", None])
def test_c_lion(scale):
    def rule(t, g, x, memory):
        s = np.sign(B1 * memory.get("m", 0) + (1 - B1) * g)
        average(memory, "m", B2, g)
        keep = scaled(np.asarray(s * g > 0, float), scale, 0.4)
        return x * (1 - rate(t) * 0.2) - rate(t) * keep * s

    check(c_lion(RATE, B1, B2, 0.2, None, scale, 0.4), rule)


def test_cautious_mask_does_not_underflow():
    tiny = {"w": np.full(2, 1e-200)}
    moved = run(cautious(optax.sgd(1.0)), {"w": np.zeros(2)}, [tiny])
    assert_close([{"w": moved[0]["w"] * 1e200}], [{"w": np.full(2, -1.0)}])


def test_cautious_never_touches_the_inner_state():
    params, grads = tree(), gradients(6)
    look = lambda state, params: optax.tree.get(state, "trace")  # noqa: E731
    plain = run(optax.sgd(0.1, 0.9), params, grads, look)
    assert_close(run(cautious(optax.sgd(0.1, 0.9)), params, grads, look), plain, rtol=1e-14)
