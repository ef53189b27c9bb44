"""Arguments of wrappers methods that recorded runs leave at rest, transcribed in NumPy."""

import gradchain
import numpy as np
import optax
import pytest
from at_rest import DECAY, GRADS, RATE, START, adam_of, stepping, walk
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf

pytestmark = pytest.mark.usefixtures("x64")


def perpendicular(x, gs):
    out = []
    for g in gs:
        h = g - np.sum(x * g) / (np.sum(x * x) + 0.3) * x
        x = x - RATE * h * np.linalg.norm(g) / (np.linalg.norm(h) + 0.3)
        out.append(x)
    return out


@pytest.mark.parametrize("name", ["c_adamw", "cautious"])
def test_the_least_share_of_entries_that_agree(name):
    def rule(x, gs):
        out = []
        for g, u in zip(gs, adam_of(x, gs, 1e-12, before=False), strict=True):
            agrees = u * g > 0
            scaled = u * agrees / max(np.mean(agrees), 0.9)
            x = x - RATE * scaled
            out.append(x)
        return out

    adam = o.adam(RATE, b2=0.95, eps=1e-12)
    opt = (
        o.cautious(adam, "mean", min_mean=0.9)
        if name == "cautious"
        else o.c_adamw(RATE, b2=0.95, eps=1e-12, min_mean=0.9)
    )
    assert_close(walk(opt), by_leaf(rule, START, GRADS), 1e-6)


def test_the_least_share_of_signs_that_agree():
    def rule(x, gs):
        m, out = 0.0, []
        for g in gs:
            u, m = np.sign(0.9 * m + 0.1 * g), 0.5 * m + 0.5 * g
            agrees = u * g > 0
            x = x - RATE * u * agrees / max(np.mean(agrees), 0.9)
            out.append(x)
        return out

    assert_close(
        walk(o.c_lion(RATE, 0.9, 0.5, scale="mean", min_mean=0.9)), by_leaf(rule, START, GRADS)
    )


def test_cautious_adam_without_correction():
    def rule(x, gs):
        m = v = 0.0
        out = []
        for g in gs:
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
            agrees = m * g > 0
            x = x - RATE * m / (np.sqrt(v) + 0.02) * agrees / max(np.mean(agrees), 0.1)
            out.append(x)
        return out

    opt = o.c_adamw(RATE, b2=0.95, eps=0.02, bias_correction=False, min_mean=0.1)
    assert_close(walk(opt), by_leaf(rule, START, GRADS))


def test_a_cautious_ascent():
    """What does not descend yet is turned around behind it."""
    ascent = optax.chain(o.cautious(optax.scale_by_adam(), descends=False), optax.scale(-RATE))
    assert_close(walk(ascent), walk(o.cautious(o.adam(RATE))))


def test_a_large_eps_of_what_is_perpendicular():
    opt = optax.chain(o.perpgrad(eps=0.3), optax.sgd(RATE))
    assert_close(walk(opt), by_leaf(perpendicular, START, GRADS), 1e-9)


def test_dampening_of_predicted_weights():
    def damped(x, gs):
        m, out = 0.0, []
        for g in gs:
            m = 0.9 * m + (1 - 0.4) * (g + DECAY * x)
            x = x - RATE * m
            out.append(x)
        return out

    true = walk(o.xgrad(RATE, "sgd", dampening=0.4, weight_decay=DECAY), look=gradchain.eval_params)
    assert_close(true, by_leaf(damped, START, GRADS))


def test_a_large_eps_of_predicted_weights():
    true = walk(o.xgrad(RATE, "adam", b2=0.95, eps=0.3), look=gradchain.eval_params)
    assert_close(true, by_leaf(stepping, START, GRADS))
