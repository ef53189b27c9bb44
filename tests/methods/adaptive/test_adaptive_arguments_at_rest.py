"""Arguments of adaptive methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import pytest
from at_rest import GRADS, RATE, START, walk
from gradchain import optimizers as o
from trajectories import assert_close

pytestmark = pytest.mark.usefixtures("x64")


def test_a_large_eps_of_adagrad_norm():
    x, total, wanted = START, 0.2, []
    for g in GRADS:
        total = total + sum(np.sum(v**2) for v in g.values())
        x = {k: x[k] - RATE * g[k] / (np.sqrt(total) + 0.3) for k in x}
        wanted.append(x)
    assert_close(walk(o.adagrad_norm(RATE, 0.2, eps=0.3)), wanted)
