"""Arguments of robust methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import pytest
from at_rest import DECAY, GRADS, START, walk
from gradchain import optimizers as o
from trajectories import assert_close, falling, rate_at

pytestmark = pytest.mark.usefixtures("x64")


def test_decay_and_clipping_of_a_worker_that_is_alone():
    opt = o.mo_nna(falling, 0, momentum=0.6, weight_decay=DECAY, gradient_clip=2.0)
    x, m, wanted = START, dict.fromkeys(START, 0.0), []
    for t, g in enumerate(GRADS, 1):
        size = np.sqrt(sum(np.sum(v**2) for v in g.values()))
        assert size > 2
        m = {k: 0.6 * m[k] + 0.4 * g[k] * 2 / size for k in x}
        x = {k: x[k] - rate_at(falling, t) * (m[k] + DECAY * x[k]) for k in x}
        wanted.append(x)
    assert_close(walk(opt), wanted)
