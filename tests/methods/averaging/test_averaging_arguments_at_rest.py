"""Arguments of averaging methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import pytest
from at_rest import DECAY, GRADS, RATE, START, walk
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf

pytestmark = pytest.mark.usefixtures("x64")


def test_inner_momentum_of_schedule_free_adamw():
    beta, b1, b2, eps = 0.7, 0.9, 0.95, 1e-3

    def rule(x, gs):
        y = z = average = x
        m = v = 0.0
        out = []
        for t, g in enumerate(gs, 1):
            m, v = beta * m + (1 - beta) * g, b2 * v + (1 - b2) * g**2
            u = m / (1 - beta**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            z = z - RATE * (u + DECAY * y)
            average = average + (z - average) / t
            y = b1 * average + (1 - b1) * z
            out.append(y)
        return out

    opt = o.schedule_free_adamw(
        RATE, b1=b1, b2=b2, eps=eps, inner_momentum=beta, weight_decay=DECAY
    )
    assert_close(walk(opt), by_leaf(rule, START, GRADS))
