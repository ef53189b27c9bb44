"""Arguments of step size methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import pytest
from at_rest import GRADS, RATE, START, adam_of, assert_decay_enters, walk
from gradchain import optimizers as o
from trajectories import assert_close

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(("name", "given"), [("sgd_hd", {"momentum": 0.9}), ("adam_hd", {})])
def test_where_the_decay_enters(name, given):
    assert_decay_enters("in the gradient", name, {**given, "hypergrad_learning_rate": 1e-3})


def test_a_large_eps_of_adam_with_its_hypergradient():
    steps = {k: list(adam_of(START[k], [g[k] for g in GRADS], 0.3, before=True)) for k in START}
    x, rate, wanted = START, RATE, []
    for t, g in enumerate(GRADS):
        if t:
            rate = rate + 1e-2 * sum(np.sum(g[k] * steps[k][t - 1]) for k in x)
        x = {k: x[k] - rate * steps[k][t] for k in x}
        wanted.append(x)
    opt = o.adam_hd(RATE, hypergrad_learning_rate=1e-2, b2=0.95, eps=0.3)
    assert_close(walk(opt), wanted)
