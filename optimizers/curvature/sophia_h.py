"""Sophia-H."""

from typing import Any

import optax

from ...catalogue import method
from ...transforms import (
    Flow,
    Signal,
    add_decayed_weights,
    chain,
    check_choice,
    clip,
    debias,
    ema,
    every,
    flow,
    hutchinson,
    maximum,
    named,
    positive,
    scale_by_learning_rate,
    transformation,
)


@transformation(gamma=positive)
def scale_by_sophia_h(
    b1: Any = 0.96,
    b2: Any = 0.99,
    eps: Any = 1e-12,
    gamma: Any = 0.01,
    clip_threshold: Any = 1.0,
    update_interval: int = 10,
    num_samples: int = 1,
    probe: str = "rademacher",
    bias_correction: bool = False,
    refresh: str = "before",
    key: Any = 0,
    sampler: Any = None,
) -> Flow:
    """Momentum over a lightly estimated Hessian diagonal, clipped entry by entry."""
    check_choice("scale_by_sophia_h", "refresh", refresh, ("before", "after"))
    estimate = chain(hutchinson(key, num_samples, probe, sampler), ema(b2))
    phase = 1 if refresh == "before" else 0

    def step(g: Signal) -> Signal:
        m = g >> named("mu", ema(b1))
        h = g >> named("hessian", every(update_interval, estimate, phase=phase))
        if bias_correction:
            m = m >> debias(b1)
        return clip(m / maximum(gamma * h, eps), -clip_threshold, clip_threshold)

    return flow(step)


@method(
    "Liu et al. 2023, Sophia: A Scalable Stochastic Second-order Optimizer for Language Model "
    "Pre-training",
    arxiv="2305.14342",
    complex_ok=False,
)
@transformation(gamma=positive)
def sophia_h(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.96,
    b2: Any = 0.99,
    eps: Any = 1e-12,
    gamma: Any = 0.01,
    clip_threshold: Any = 1.0,
    weight_decay: Any = 0.2,
    update_interval: int = 10,
    num_samples: int = 1,
    probe: str = "rademacher",
    bias_correction: bool = False,
    refresh: str = "before",
    key: Any = 0,
    mask: Any = None,
    sampler: Any = None,
) -> Flow:
    """Sophia-H."""
    return chain(
        scale_by_sophia_h(
            b1,
            b2,
            eps,
            gamma,
            clip_threshold,
            update_interval,
            num_samples,
            probe,
            bias_correction,
            refresh,
            key,
            sampler,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
