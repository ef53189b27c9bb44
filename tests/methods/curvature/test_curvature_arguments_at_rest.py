"""Arguments of curvature methods that recorded runs leave at rest, transcribed in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from at_rest import DECAY, GRADS, RATE, SIZES, START, STEPS, draw, loss, of_the_loss, walk
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf

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


def test_the_batch_of_sophia_g():
    """The estimate is as large as the positions are many that the mean is said to have."""
    inputs, labels = draw(8, shapes={"x": (2, 4)})["x"], np.array([2, 0])

    def rule(x, gs):
        m, h, out = 0.0, 0.0, []
        for t, g in enumerate(gs):
            if t % 2 == 0:
                chances = np.exp(inputs @ x)
                chances /= chances.sum(-1, keepdims=True)
                slope = inputs.T @ (chances - np.eye(3)[labels]) / 2
                h = 0.7 * h + 0.3 * 7 * slope**2
            m = 0.965 * m + 0.035 * g
            x = x - RATE * np.clip(m / (0.4 * h + 0.05), -1, 1)
            out.append(x)
        return out

    opt = o.sophia_g(
        RATE, b2=0.7, eps=0.05, gamma=0.4, weight_decay=0.0, update_interval=2, first_estimate=1,
        batch_size=7, sampler=lambda *_: jnp.asarray(labels),
    )  # fmt: skip
    start, grads = {"w": START["w"]}, [{"w": g["w"]} for g in GRADS]
    logits = jax.tree_util.Partial(lambda p: inputs @ p["w"])
    found = walk(opt, start, grads, lambda t: {"logits_fn": logits})
    assert_close(found, by_leaf(rule, start, grads))
