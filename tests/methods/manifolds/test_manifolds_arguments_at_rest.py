"""Arguments of manifolds methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import pytest
from at_rest import DECAY, GRADS, RATE, START, walk
from gradchain import optimizers as o
from gradchain.transforms.manifolds import Euclidean
from trajectories import assert_close, by_leaf

pytestmark = pytest.mark.usefixtures("x64")


class Halving(Euclidean):
    """A flat space whose projection halves."""

    def project(self, x):
        return x / 2


def damped(x, gs, first, decay=0.0, ahead=0.0, every=None):
    m, out = None, []
    for t, g in enumerate(gs, 1):
        r = g + decay * x
        past = first(r) if m is None else m
        m = 0.9 * past + (1 - 0.4) * r
        x = x - RATE * (r + ahead * m if ahead else m)
        x = x / 2 if every and t % every == 0 else x
        out.append(x)
    return out


def test_dampening():
    rsgd = o.rsgd(RATE, momentum=0.9, dampening=0.4)
    assert_close(walk(rsgd), by_leaf(damped, START, GRADS, first=lambda g: g))
    halved = o.rsgd(RATE, Halving(), momentum=0.9, dampening=0.4, stabilize=3)
    assert_close(walk(halved), by_leaf(damped, START, GRADS, first=lambda g: g, every=3))
    settings = {"momentum_init": "zeros", "nesterov": True, "weight_decay": DECAY}
    zeros = o.rsgd(RATE, momentum=0.9, dampening=0.4, **settings)
    wanted = by_leaf(damped, START, GRADS, first=lambda r: 0.0, decay=DECAY, ahead=0.9)
    assert_close(walk(zeros), wanted)


@pytest.mark.parametrize("name", ["riemannian_adam", "riemannian_amsgrad"])
def test_riemannian_moments_without_correction(name):
    """In flat space, where a leaf has one second moment for each entry, with a projection."""

    def rule(x, gs):
        m = v = top = 0.0
        out = []
        for t, g in enumerate(gs, 1):
            g = g + DECAY * x
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
            top = np.maximum(top, v) if name.endswith("amsgrad") else v
            x = x - RATE * m / (np.sqrt(top) + 0.02)
            x = x / 2 if t % 3 == 0 else x
            out.append(x)
        return out

    settings = {"bias_correction": False, "weight_decay": DECAY, "stabilize": 3}
    opt = getattr(o, name)(RATE, Halving(), b2=0.95, eps=0.02, **settings)
    assert_close(walk(opt), by_leaf(rule, START, GRADS))


def summed(x, gs):
    v, out = 0.2, []
    for g in gs:
        g = g + DECAY * x
        v = v + g**2
        x = x - RATE * g / (np.sqrt(v) + 0.3)
        out.append(x)
    return out


def test_a_large_eps():
    settings = {"initial_accumulator_value": 0.2, "weight_decay": DECAY}
    opt = o.riemannian_adagrad(RATE, eps=0.3, **settings)
    assert_close(walk(opt), by_leaf(summed, START, GRADS), 1e-9)
