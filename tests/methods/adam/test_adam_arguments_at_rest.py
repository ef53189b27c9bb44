"""Arguments of adam methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import pytest
from at_rest import DECAY, GRADS, START, walk
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf, falling, rate_at

pytestmark = pytest.mark.usefixtures("x64")


def test_the_decay_of_adamw_goes_with_a_scheduled_rate():
    opt = o.adamw(falling, weight_decay=DECAY, decouple_lr=True, base_learning_rate=0.2)

    def rule(x, gs):
        m = v = 0.0
        out = []
        for t, g in enumerate(gs, 1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            x = x - rate_at(falling, t) * (u + DECAY / 0.2 * x)
            out.append(x)
        return out

    assert_close(walk(opt), by_leaf(rule, START, GRADS))
