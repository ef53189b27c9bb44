"""Arguments of games methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import pytest
from at_rest import GRADS, RATE, SIZES, START, STEPS, of_the_loss, walk
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf

pytestmark = pytest.mark.usefixtures("x64")


def turning(x, gs, corrects):
    """A momentum that turns in the complex plane."""
    beta = 0.9 * np.exp(0.4j)
    m, v, out = 0j, 0.0, []
    for t, g in enumerate(gs, 1):
        m, v = beta * m + (1 - beta if corrects else 1) * g, 0.95 * v + 0.05 * g**2
        u = m / (1 - beta**t) if corrects else m
        x = x - RATE * u.real / (np.sqrt(v / (1 - 0.95**t)) + 0.3)
        out.append(x)
    return out


def test_the_rate_of_the_extrapolation():
    x, wanted = START, []
    for _ in range(STEPS):
        half = {k: x[k] - 0.3 * SIZES[k] * x[k] for k in x}
        x = {k: x[k] - RATE * SIZES[k] * half[k] for k in x}
        wanted.append(x)
    assert_close(of_the_loss(o.extragradient(RATE, extrapolation_rate=0.3)), wanted)


@pytest.mark.parametrize("corrects", [False, True])
def test_a_large_eps(corrects):
    opt = o.complex_adam(RATE, phase=0.4, b2=0.95, eps=0.3, bias_correction=corrects)
    assert_close(walk(opt), by_leaf(turning, START, GRADS, corrects=corrects), 1e-9)
