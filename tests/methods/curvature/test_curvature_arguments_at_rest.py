"""Arguments of curvature methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import pytest
from at_rest import DECAY, RATE, SIZES, START, STEPS, loss, of_the_loss
from gradchain import optimizers as o
from trajectories import assert_close

pytestmark = pytest.mark.usefixtures("x64")


def test_momentum_and_decay_of_oasis():
    """Random signs make the diagonal of a quadratic exact."""

    def rule(x, sizes):
        d, out = 0.0, []
        for _ in range(STEPS):
            d = 0.7 * d + 0.3 * sizes * x
            x = x - RATE * (d / np.maximum(sizes, 0.8) + DECAY * x)
            out.append(x)
        return out

    runs = {k: rule(START[k], SIZES[k]) for k in START}
    opt = o.oasis(RATE, alpha=0.8, adaptive=False, momentum=0.7, weight_decay=DECAY)
    assert_close(of_the_loss(opt), [{k: runs[k][t] for k in runs} for t in range(STEPS)])


def test_the_lowest_loss_of_sania():
    """Far above the lowest loss a step is whole; near it Polyak's step is shorter."""
    lowest, eps = 0.8 * loss(START), 0.1
    x, s, wanted, lengths = START, dict.fromkeys(START, 0.0), [], []
    for _ in range(STEPS):
        g = {k: SIZES[k] * x[k] for k in x}
        s = {k: s[k] + g[k] ** 2 for k in x}
        p = {k: g[k] / np.maximum(s[k], eps) for k in x}
        total = sum(np.sum(p[k] * g[k]) for k in x)
        c = max(loss(x) - lowest, 0) / total
        lengths.append(1 - np.sqrt(1 - 2 * c) if 2 * c < 1 else 1.0)
        x = {k: x[k] - 0.2 * lengths[-1] * p[k] for k in x}
        wanted.append(x)
    assert min(lengths) < 1
    opt = o.sania(0.2, "adagrad_sq", eps=eps, f_star=lowest)
    assert_close(of_the_loss(opt), wanted, 1e-9)
