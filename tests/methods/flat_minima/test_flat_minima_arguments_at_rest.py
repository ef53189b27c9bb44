"""Arguments of flat minima methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import optax
import pytest
from at_rest import RATE, SIZES, START, STEPS, of_the_loss
from gradchain import optimizers as o
from trajectories import assert_close

pytestmark = pytest.mark.usefixtures("x64")


def test_an_ascent_that_eps_shortens():
    x, wanted = START, []
    for _ in range(STEPS):
        g = {k: SIZES[k] * x[k] for k in x}
        length = np.sqrt(sum(np.sum(v**2) for v in g.values())) + 0.7
        x = {k: x[k] - RATE * SIZES[k] * (x[k] + 0.2 * g[k] / length) for k in x}
        wanted.append(x)
    assert_close(of_the_loss(o.sam(optax.sgd(RATE), 0.2, eps=0.7)), wanted)
