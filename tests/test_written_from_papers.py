"""SOAP, Muon, Prodigy and MADGRAD as a newcomer writes them: from their papers, with public names.

Each is a fraction of the code that was published with it, and follows the recorded run of that.
"""

import inspect

import pytest
import replay
from gradchain.transforms import (
    cbrt,
    delay,
    eigenvectors,
    ema,
    every,
    flow,
    global_dot,
    global_sum,
    initial_params,
    leaf_size,
    matrices,
    maximum,
    merge,
    momentum,
    newton_schulz,
    pair,
    running_sum,
    scale_by_adam,
    scheduled,
    split,
    sqrt,
    square,
    step_count,
    trace,
    where,
)


def madgrad(learning_rate, momentum, eps):
    def step(g, params):
        lamb = (scheduled(learning_rate) + eps) * sqrt(step_count())
        s = lamb * g >> running_sum()
        v = lamb * square(g) >> running_sum()
        z = initial_params() - s / (cbrt(v) + eps)
        return (1 - momentum) * (z - params)

    return flow(step)


def prodigy(betas, estim_lr0, weight_decay, eps, **_):
    b1, b2 = betas

    def step(g, params):
        d = delay(estim_lr0, name="d")
        m = d * g >> ema(b1)
        v = square(d * g) >> ema(b2)
        weight = d * d / estim_lr0
        r = weight * global_dot(g, initial_params() - params) >> trace(b2**0.5)
        s = weight * g >> trace(b2**0.5)
        new_d = d << maximum(d, r / global_sum(abs(s)))
        return -d * (m / (sqrt(v) + new_d * eps) + weight_decay * params)

    return flow(step)


def muon(learning_rate, beta=0.95):
    def orthogonalized(g):
        m = newton_schulz(g >> momentum(beta, "debiased", nesterov=True), eps=1e-8)
        return m * sqrt(maximum(1.0, leaf_size(g, axis=1) / leaf_size(g, axis=0)))

    def step(g):
        hidden, others = split(g, matrices)
        u = merge(hidden >> flow(orthogonalized), others >> scale_by_adam(nesterov=True))
        return -learning_rate * u

    return flow(step)


def soap(learning_rate, update_interval, b1, b2, eps, **_):
    def step(g):
        outer = pair(g @ g.T, g.T @ g)
        factors = delay(outer, name="factors")
        factors << b2 * factors + (1 - b2) * outer
        q = factors >> every(update_interval, eigenvectors(), phase=2, start=2)
        m = where(step_count() == 1, 0.0, g) >> ema(b1)
        v = square(q[0].T @ g @ q[1]) >> ema(b2)
        u = q[0] @ ((q[0].T @ m @ q[1]) / (sqrt(v) + eps)) @ q[1].T
        return -learning_rate * u

    return flow(step)


WRITTEN = {
    "madgrad__torch_schedule": madgrad,
    "prodigy__package": prodigy,
    "muon__defaults": muon,
    "soap__matrices": soap,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_it_follows_the_published_code(name):
    replay.check(replay.load(f"{name}.npz"), WRITTEN[name])


@pytest.mark.parametrize("factory", WRITTEN.values())
def test_it_is_short(factory):
    assert len(inspect.getsource(factory).splitlines()) <= 15
