"""MoMo."""

import numpy as np
import pytest
from gradchain.optimizers import (
    momo,
)
from trajectories import assert_close, gradients, run, tree


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_momo(adapt, correct, decay):
    beta, floor, lr = 0.8, -0.5, 0.7
    params, grads = tree(), gradients(10)
    values = np.random.default_rng(5).normal(size=10) ** 2 * 3 - 0.4
    dot = lambda a, b: sum(np.sum(a[k] * b[k]) for k in a)  # noqa: E731
    x, lb, wanted = dict(params), floor, []
    m = {k: 0 * v for k, v in params.items()}
    f = c = 0.0
    for t, (g, value) in enumerate(zip(grads, values, strict=True), start=1):
        if t == 1 and not correct:
            m, f, c = g, value, dot(g, x)
        rho = 1 - beta**t if correct else 1.0
        m = {k: beta * m[k] + (1 - beta) * g[k] for k in g}
        f, c = beta * f + (1 - beta) * value, beta * c + (1 - beta) * dot(g, x)
        a = 1 + lr * decay
        d, n = dot(m, x), dot(m, m)
        cap = a * f + d - a * c
        if adapt and cap < a * rho * lb:
            lb = max(cap / (2 * a * rho), floor)
        tau = min(lr / rho, max(a * (f - rho * lb) + d - a * c, 0) / n)
        if adapt:
            lb = max((f + d - c - tau * n / 2) / rho, floor)
        x = {k: (x[k] - tau * m[k]) / a for k in x}
        wanted.append(x)
    opt = momo(lr, beta, floor, decay, adapt, correct)
    assert_close(run(opt, params, grads, value=values), wanted)


def test_momo_rests_where_there_is_no_slope():
    params = tree()
    zeros = [{k: 0 * v for k, v in params.items()}] * 2
    assert_close(run(momo(), params, zeros, value=np.ones(2)), [params] * 2)
