"""Adaptive methods of several families against their rules, and what they have in common."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from adaptive_rules import adabound, ademamix, amsgrad, fadam, gravity, innaprop, optimistic_amsgrad
from gradchain import optimizers
from trajectories import (
    MASK,
    assert_close,
    by_leaf,
    draws,
    falling,
    rate_at,
    run,
    single,
)

# --- transcriptions ------------------------------------------------------------------------------


def adamax(x, gs, learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    m, u, out = 0 * x, 0 * x, []
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, abs(g) + eps)
        x = x - rate_at(learning_rate, t) * (m / ((1 - b1**t) * u) + weight_decay * x)
        out.append(x)
    return out


def amsbound(x, gs, **settings):
    return adabound(x, gs, maximum=True, **settings)


def diffgrad(x, gs, learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    m, v, past, out = 0 * x, 0 * x, 0 * x, []
    for t, g in enumerate(gs, 1):
        g = g + weight_decay * x
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        xi = 1 / (1 + np.exp(-abs(past - g)))
        past = g
        size = rate_at(learning_rate, t) * np.sqrt(1 - b2**t) / (1 - b1**t)
        x = x - size * xi * m / (np.sqrt(v) + eps)
        out.append(x)
    return out


def novograd(
    x,
    gs,
    learning_rate,
    b1=0.95,
    b2=0.98,
    eps=1e-8,
    eps_root=0.0,
    weight_decay=0.0,
    grad_averaging=False,
    average_first=False,
):
    v, m, out = 0.0, 0 * x, []
    for t, g in enumerate(gs, 1):
        n = np.sum(g**2)
        v = n if t == 1 else b2 * v + (1 - b2) * n
        d = g / (np.sqrt(v + eps_root) + eps) + weight_decay * x
        if grad_averaging and (t > 1 or average_first):
            d = (1 - b1) * d
        m = d if t == 1 else b1 * m + d
        x = x - rate_at(learning_rate, t) * m
        out.append(x)
    return out


def lamb(x, gs, learning_rate, b1=0.9, b2=0.999, eps=1e-6, eps_root=0.0, weight_decay=0.0):
    m, v, out = 0 * x, 0 * x, []
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps) + weight_decay * x
        phi, rho = np.sqrt(np.sum(x**2)), np.sqrt(np.sum(u**2))
        x = x - rate_at(learning_rate, t) * (phi / rho if phi > 0 and rho > 0 else 1) * u
        out.append(x)
    return out


def multi_adam(
    x,
    gs,
    learning_rate=1e-3,
    b1=0.99,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.0,
    group_weights=None,
    amsgrad=False,
    agg_b1=None,
    agg_b2=None,
):
    m, v, top, a, b, out = 0 * gs[0], 0 * gs[0], 0 * gs[0], 0 * x, 0 * x, []
    count = len(gs[0])
    weights = group_weights or [1 / count] * count
    for t, g in enumerate(gs, 1):
        g = g + weight_decay * x
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        top = np.maximum(top, v)
        den = np.sqrt(top if amsgrad else v) / np.sqrt(1 - b2**t) + eps
        u = sum(w * one for w, one in zip(weights, m / den, strict=True))
        if agg_b1 is not None:
            a, b = agg_b1 * a + (1 - agg_b1) * u, agg_b2 * b + (1 - agg_b2) * u**2
            u = (a / (1 - agg_b1**t)) / (np.sqrt(b) / np.sqrt(1 - agg_b2**t) + eps)
        x = x - rate_at(learning_rate, t) / (1 - b1**t) * u
        out.append(x)
    return out


# --- comparisons ---------------------------------------------------------------------------------

LEAFWISE = [
    (adamax, {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "weight_decay": 0.3, "mask": MASK}),
    (amsgrad, {"b1": 0.8, "b2": 0.7, "eps": 1e-3, "eps_root": 1e-2, "max_of": "raw"}),
    (amsgrad, {"b2": 0.6, "bias_correction_mu": False}),
    (amsgrad, {"b2": 0.6, "bias_correction_nu": False, "max_of": "raw"}),
    (
        adabound,
        {"final_learning_rate": 0.05, "gamma": 0.3, "b1": 0.8, "b2": 0.7, "eps": 1e-2}
        | {"weight_decay": 0.2, "mask": MASK},
    ),
    (adabound, {"gamma": 0.5, "weight_decay": 0.05, "decoupled": True, "mask": MASK}),
    (adabound, {"gamma": 0.5, "base_learning_rate": 0.4}),
    (
        amsbound,
        {"gamma": 0.4, "b2": 0.6, "weight_decay": 0.05, "decoupled": True}
        | {"base_learning_rate": 0.4},
    ),
    (diffgrad, {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "weight_decay": 0.3}),
    (ademamix, {"b1": 0.8, "b2": 0.7, "b3": 0.95, "alpha": 3.0, "b3_warmup": 6, "alpha_warmup": 4}),
    (
        ademamix,
        {"b1": 0.0, "b3_warmup": 6, "alpha_warmup": 20, "count_offset": 1, "eps_root": 1e-2}
        | {"eps": 1e-3, "weight_decay": 0.3, "mask": MASK},
    ),
    (
        ademamix,
        {"alpha": lambda i: 1.0 + 0.5 * i, "b3": lambda i: 0.9 + 0.01 * i, "alpha_warmup": 3},
    ),
    (
        fadam,
        {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "power": 0.4, "clip_threshold": 0.5}
        | {"weight_decay": 0.3, "mask": MASK},
    ),
    (fadam, {"clip_threshold": 2.0, "weight_decay": 0.0}),
    (
        novograd,
        {"b1": 0.8, "b2": 0.6, "eps": 1e-2, "eps_root": 1e-2, "weight_decay": 0.2}
        | {"grad_averaging": True, "mask": MASK},
    ),
    (novograd, {"grad_averaging": True, "average_first": True}),
    (
        lamb,
        {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "eps_root": 1e-2, "weight_decay": 0.3, "mask": MASK},
    ),
    (gravity, {"alpha": 0.0, "beta": 0.7, "count_start": 1}),
    (
        innaprop,
        {"alpha": 2.0, "beta": 2.0, "b2": 0.7, "eps": 1e-2, "weight_decay": 0.3, "mask": MASK},
    ),
    (
        optimistic_amsgrad,
        {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "history": 2, "reg": 0.3, "weight_decay": 0.2},
    ),
    (optimistic_amsgrad, {"predictor": "last", "b2": 0.8, "bias_correction": False}),
]


@pytest.mark.parametrize(
    ("rule", "settings"), LEAFWISE, ids=[f"{r.__name__}-{i}" for i, (r, _) in enumerate(LEAFWISE)]
)
def test_follows_the_transcription_of_its_rule(rule, settings):
    params, grads = draws(scale=2.0)
    opt = getattr(optimizers, rule.__name__)(falling, **settings)
    assert_close(
        run(opt, params, grads), by_leaf(rule, params, grads, learning_rate=falling, **settings)
    )


MULTI = [
    {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "weight_decay": 0.2},
    {"group_weights": [0.5, 0.2, 0.3], "amsgrad": True, "b2": 0.6},
    {"b1": 0.8, "agg_b1": 0.7, "agg_b2": 0.6, "group_weights": [0.7, 0.4]},
]


@pytest.mark.parametrize("settings", MULTI, ids=range(len(MULTI)))
def test_multi_adam(settings):
    groups = len(settings.get("group_weights", (0, 0)))
    params, grads = draws(lead=(groups,))
    wanted = by_leaf(multi_adam, params, grads, learning_rate=falling, **settings)
    assert_close(run(optimizers.multi_adam(falling, **settings), params, grads), wanted)


def test_multi_adam_does_not_see_the_scale_of_a_loss():
    params, grads = draws(lead=(2,))
    scaled = jax.tree.map(lambda g: g * np.array([1.0, 1e6]).reshape(2, *[1] * (g.ndim - 1)), grads)
    opt = optimizers.multi_adam(0.1, eps=0.0)
    assert_close(
        run(opt, params, scaled), by_leaf(multi_adam, params, grads, learning_rate=0.1, eps=0.0)
    )


def test_multi_adam_of_one_group_is_adam():
    params, grads = draws()
    got = run(optimizers.multi_adam(0.1, 0.9, 0.99, num_groups=1), params, grads)
    wanted = run(optax.adam(0.1, 0.9, 0.99), params, grads)
    assert_close(got, wanted)


def test_multi_adam_refuses_another_number_of_groups():
    params, grads = single(draws(lead=(3,)))
    opt = optimizers.multi_adam(0.1)
    with pytest.raises(ValueError, match="stacked over 2"):
        opt.update(grads[0], opt.init(params), params)
    with pytest.raises(ValueError, match="group_weights"):
        optimizers.multi_adam(0.1, group_weights=[0.5, 0.5], num_groups=3)
    with pytest.raises(ValueError, match="agg_b2"):
        optimizers.multi_adam(0.1, agg_b1=0.5)


# --- reductions and traps ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optimizers.adamax(0.1, weight_decay=0.1), optax.adamaxw(0.1, weight_decay=0.1)),
        (optimizers.amsgrad(0.1, b2=0.9), optax.amsgrad(0.1, b2=0.9)),
        (optimizers.novograd(0.1, 0.9, 0.25, 1e-6), optax.novograd(0.1, 0.9, 0.25, 1e-6)),
        (
            optimizers.lamb(0.1, weight_decay=0.1, mask=MASK),
            optax.lamb(0.1, weight_decay=0.1, mask=MASK),
        ),
        (
            optimizers.innaprop(0.1, 0.5, 2.0, eps=0.0, weight_decay=0.0),
            optax.chain(optax.scale_by_rms(0.999, 0.0, bias_correction=True), optax.scale(-0.2)),
        ),
        (
            optimizers.lion_k(0.1, "l1", weight_decay=0.1),
            optimizers.lion(0.1, weight_decay=0.1),
        ),
    ],
    ids=["adamaxw", "amsgrad", "novograd", "lamb", "innaprop_is_rmsprop", "lion"],
)
def test_equals(ours, theirs):
    """Optax's methods, where it has them, and the special cases that the mathematics gives."""
    params, grads = draws()
    wanted = run(theirs, params, grads)
    assert_close(run(ours, params, grads), wanted)


def test_every_argument_of_a_direction_is_that_of_its_optimizer():
    """`scale_by_<name>` takes what `<name>` takes, with the same defaults."""
    pairs = {"adamax": "adamax", "amsgrad": "amsgrad", "adan": "adan", "ademamix": "ademamix"}
    pairs |= {"fadam": "fadam", "novograd": "novograd", "upgd": "upgd", "mup_adam": "mup_adam"}
    pairs |= {"adam_critical_momenta": "critical_momenta", "multi_adam": "multi_adam"}
    pairs |= {"diffgrad": "diffgrad", "innaprop": "innaprop", "adabound": "adabound"}
    for name, direction in pairs.items():
        whole = inspect.signature(getattr(optimizers, name)).parameters
        part = inspect.signature(getattr(optimizers, f"scale_by_{direction}")).parameters
        for argument, parameter in part.items():
            if argument != "amsbound":
                assert parameter.default == whole[argument].default, (name, argument)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adam", {"eps": np.float64(-1.0)}),
        ("adam", {"b1": np.ones(2)}),
        ("grams", {"learning_rate": jnp.ones(3)}),
        ("adamp", {"channel_axis": 0.5}),
        ("ranger21", {"total_steps": 9, "variance_offset": -1.0}),
        ("ranger21", {"total_steps": 9, "end_value": "small"}),
        ("adafactor", {"min_scale": -1.0}),
        ("adafactor", {"decay_offset": 0.5}),
        ("mup_adam", {"base_shapes": {"w": (1,)}, "fan_in_axis": "last"}),
        ("multi_adam", {"group_weights": 0.5}),
        ("spam", {"reset_interval": np.inf}),
    ],
)
def test_refuses_by_name_what_is_no_number_or_out_of_range(name, settings):
    *_, argument = settings
    with pytest.raises(ValueError, match=argument):
        getattr(optimizers, name)(**{"learning_rate": 0.1, **settings})
