"""Arguments of momentum methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import pytest
from at_rest import DECAY, GRADS, RATE, START, assert_decay_enters, assert_transposes, walk
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf

pytestmark = pytest.mark.usefixtures("x64")


def test_where_the_decay_of_adaptive_braking_enters():
    assert_decay_enters("in the gradient", "adaptive_braking", {"nesterov": True})


def test_braking_by_channels_looks_ahead():
    def rule(axis):
        def path(x, gs):
            v, out = np.zeros_like(x), []
            for g in gs:
                rest = tuple(i for i in range(x.ndim) if i != axis % x.ndim) if x.ndim > 1 else None
                inner = np.sum(g * v, axis=rest, keepdims=True)
                sizes = [np.sqrt(np.sum(y**2, axis=rest, keepdims=True)) for y in (g, v)]
                braked = g * (1 - 0.7 * inner / np.maximum(sizes[0] * sizes[1], 3.0))
                v = 0.9 * v + braked
                x = x - RATE * (braked + 0.9 * v)
                out.append(x)
            return out

        return path

    for axis in (0, -1):
        settings = {"rho": 0.7, "nesterov": True, "granularity": "filter", "eps": 3.0}
        opt = o.adaptive_braking(RATE, channel_axis=axis, **settings)
        assert_close(walk(opt), by_leaf(rule(axis), START, GRADS))


def by_first_ratio(x, gs):
    ratio = np.linalg.norm(gs[0]) / (np.std(gs[0], ddof=1) + 0.3)
    m, out = gs[0], []
    for t, g in enumerate(gs):
        m = m if t == 0 else 0.9 * m + 0.1 * g
        x = x - RATE * (ratio * m + DECAY * x)
        out.append(x)
    return out


def test_a_large_eps():
    opt = o.sgd_sai(RATE, eps=0.3, weight_decay=DECAY)
    assert_close(walk(opt), by_leaf(by_first_ratio, START, GRADS), 1e-9)


def test_channels_along_the_other_axis():
    assert_transposes(lambda axis: o.sgdp(RATE, delta=4.0, channel_axis=axis))
