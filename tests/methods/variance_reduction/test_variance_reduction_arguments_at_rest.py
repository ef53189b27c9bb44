"""Arguments of variance reduction that recorded runs leave at rest, transcribed in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from at_rest import GRADS, RATE, START, assert_decay_enters, walk
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf

pytestmark = pytest.mark.usefixtures("x64")


def test_where_the_decay_of_multi_momentum_enters():
    cluster = jnp.asarray(1)
    assert_decay_enters("in the gradient", "multi_momentum", {"num_clusters": 2}, cluster=cluster)


@pytest.mark.parametrize("base", ["sgd", "sgdm", "igt"])
def test_bases_of_multi_momentum(base):
    clusters, shares = [0, 1, 0, 0], np.array([0.7, 0.3])

    def rule(x, gs):
        memories, b, a, out = np.zeros((2, *x.shape)), 0.0, 0.0, []
        weights = x
        for t, (g, c) in enumerate(zip(gs, clusters, strict=True), 1):
            v = g - memories[c] + np.tensordot(shares, memories, 1)
            memories[c] = 0.6 * memories[c] + 0.4 * g
            a = ((t - 1) * a + v) / t
            b = (0.0 if base == "sgd" else 0.8) * b + (a if base == "igt" else v)
            weights = weights - RATE * b
            out.append(weights - t * RATE * b if base == "igt" else weights)
        return out

    opt = o.multi_momentum(RATE, 2, tuple(shares), decay=0.6, base=base, momentum=0.8)
    got = walk(opt, extras=lambda t: {"cluster": jnp.asarray(clusters[t])})
    assert_close(got, by_leaf(rule, START, GRADS))
