"""Adam."""

from typing import Any

import optax

from ...catalogue import method
from ...transforms import (
    Flow,
    chain,
    debias,
    ema,
    flow,
    named,
    scale_by_learning_rate,
    sqrt,
    square,
)
from ...transforms.notation.checks import transformation
from ...transforms.notation.signal import Signal


@transformation()
def scale_by_adam(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> Flow:
    def step(g: Signal) -> Signal:
        m = g >> named("mu", ema(b1, dtype=mu_dtype))
        v = square(g) >> named("nu", ema(b2))
        return (m >> debias(b1)) / (sqrt((v >> debias(b2)) + eps_root) + eps)

    return flow(step)


@method("Kingma & Ba 2015, Adam: A Method for Stochastic Optimization", arxiv="1412.6980")
@transformation()
def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> Flow:
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
