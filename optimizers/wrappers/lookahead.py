"""Lookahead."""

from typing import Any

import optax

from ...catalogue import method
from ...transforms import (
    Flow,
    Signal,
    delay,
    flow,
    fraction,
    step_count,
    transformation,
    where,
)


@method(
    "Zhang et al. 2019, Lookahead Optimizer: k steps forward, 1 step back",
    arxiv="1907.08610",
    wraps=True,
)
@transformation(slow_step_size=fraction)
def lookahead(
    inner: optax.GradientTransformation,
    sync_period: int = 5,
    slow_step_size: Any = 0.8,
    pullback_momentum: str = "none",
) -> Flow:
    def step(g: Signal, params: Signal) -> Signal:
        slow = delay(params, name="slow", evaluation=(1.0, 0.0))
        fast = params + (g >> inner)
        sync = step_count() % sync_period == 0
        slow << where(sync, slow + slow_step_size * (fast - slow), slow)
        return where(sync, slow.written, fast) - params

    return flow(step)
