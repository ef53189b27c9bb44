"""Arguments of manifolds methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import pytest
from at_rest import GRADS, RATE, START, walk
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf

pytestmark = pytest.mark.usefixtures("x64")


def damped(x, gs, first):
    m, out = None, []
    for g in gs:
        past = first(g) if m is None else m
        m = 0.9 * past + (1 - 0.4) * g
        x = x - RATE * m
        out.append(x)
    return out


def test_dampening():
    rsgd = o.rsgd(RATE, momentum=0.9, dampening=0.4)
    assert_close(walk(rsgd), by_leaf(damped, START, GRADS, first=lambda g: g))
    zeros = o.rsgd(RATE, momentum=0.9, dampening=0.4, momentum_init="zeros")
    assert_close(walk(zeros), by_leaf(damped, START, GRADS, first=lambda g: 0.0))


@pytest.mark.parametrize("name", ["riemannian_adam", "riemannian_amsgrad"])
def test_riemannian_moments_without_correction(name):
    """In flat space, where a leaf has one second moment for each entry."""

    def rule(x, gs):
        m = v = top = 0.0
        out = []
        for g in gs:
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
            top = np.maximum(top, v) if name.endswith("amsgrad") else v
            x = x - RATE * m / (np.sqrt(top) + 0.02)
            out.append(x)
        return out

    opt = getattr(o, name)(RATE, b2=0.95, eps=0.02, bias_correction=False)
    assert_close(walk(opt), by_leaf(rule, START, GRADS))


def summed(x, gs):
    v, out = 0.0, []
    for g in gs:
        v = v + g**2
        x = x - RATE * g / (np.sqrt(v) + 0.3)
        out.append(x)
    return out


def test_a_large_eps():
    assert_close(walk(o.riemannian_adagrad(RATE, eps=0.3)), by_leaf(summed, START, GRADS), 1e-9)
