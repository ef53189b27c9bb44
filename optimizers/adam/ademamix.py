"""AdEMAMix."""

from typing import Any

import optax

from ...registry import method
from ...schedules.ademamix import ademamix_alpha_schedule, ademamix_b3_schedule
from ...transforms import (
    Flow,
    Signal,
    add_decayed_weights,
    chain,
    count_from_0,
    debiased_root,
    divide,
    ema,
    flow,
    momentum,
    named,
    nonnegative,
    scale_by_learning_rate,
    scheduled,
    square,
    transformation,
)


@transformation(
    alpha=nonnegative,
    b3_warmup=count_from_0,
    alpha_warmup=count_from_0,
    count_offset=count_from_0,
)
def scale_by_ademamix(
    b1: Any = 0.9,
    b2: Any = 0.999,
    b3: Any = 0.9999,
    alpha: Any = 5.0,
    b3_warmup: int | None = None,
    alpha_warmup: int | None = None,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    count_offset: int = 0,
) -> Flow:
    """Adam with a second, much slower momentum beside the first.

        m1_t = b1 m1_{t-1} + (1 - b1) g_t
        m2_t = b3_t m2_{t-1} + (1 - b3_t) g_t
        v_t = b2 v_{t-1} + (1 - b2) g_t^2
        u_t = (m1_t / (1 - b1^t) + alpha_t m2_t) / (sqrt(v_t / (1 - b2^t) + eps_root) + eps)

    m2 is not debiased: it is meant to start small. alpha and b3 grow with their warm-ups, alpha
    linearly from 0, b3 from b1 so that its half-life grows linearly; without them a large alpha
    diverges early.

    Args:
      b1: decay of the fast momentum, in [0, 1); exactly 0 keeps none.
      b2: decay of the second moment, in [0, 1).
      b3: decay of the slow momentum, in [0, 1), or a schedule, which overrides the warm-up.
      alpha: weight of the slow momentum, or a schedule, which overrides the warm-up.
      b3_warmup: length of b3's warm-up in steps; usually the whole run.
      alpha_warmup: length of alpha's.
      eps: added to the root.
      eps_root: added under the root.
      mu_dtype: storage dtype of both momenta. bfloat16 is too coarse for the slow one.
      count_offset: added to the count that warm-ups and schedules see, which is 0 at the first
        update; 1 for the authors' PyTorch code.

    References:
      Pagliardini, Ablin & Grangier 2024, The AdEMAMix Optimizer: Better, Faster, Older (arXiv
      2409.03137), and the optax file of apple/ml-ademamix, which we follow. Its PyTorch file counts
      from 1, has alpha 2, and 1e-8 inside the logarithm of the half-life.
    """

    def step(g: Signal) -> Signal:
        fast = g >> named("m1", momentum(b1, "debiased", dtype=mu_dtype))
        slow = g >> named("m2", ema(_warmed(b3, b3_warmup, _b3_schedule), dtype=mu_dtype))
        v = square(g) >> named("nu", ema(b2))
        ahead = fast + _warmed(alpha, alpha_warmup, _alpha_schedule) * slow
        return divide(ahead, debiased_root(v, b2, eps, eps_root), eps)

    def _warmed(value: Any, warmup: int | None, ramp: Any) -> Any:
        if callable(value):
            return scheduled(lambda count: value(count + count_offset))
        return value if warmup is None else scheduled(ramp(value, warmup))

    def _alpha_schedule(end: Any, steps: int) -> Any:
        return ademamix_alpha_schedule(end, steps, count_offset=count_offset)

    def _b3_schedule(end: Any, steps: int) -> Any:
        return ademamix_b3_schedule(end, b1, steps, count_offset=count_offset)

    return flow(step)


@method(
    "Pagliardini, Ablin & Grangier 2024, The AdEMAMix Optimizer: Better, Faster, Older",
    arxiv="2409.03137",
    tags=("adam", "decoupled-decay", "momentum"),
)
@transformation(
    alpha=nonnegative,
    b3_warmup=count_from_0,
    alpha_warmup=count_from_0,
    count_offset=count_from_0,
)
def ademamix(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Any = 0.9,
    b2: Any = 0.999,
    b3: Any = 0.9999,
    alpha: Any = 5.0,
    b3_warmup: int | None = None,
    alpha_warmup: int | None = None,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    weight_decay: Any = 0.0,
    mask: Any = None,
    mu_dtype: Any = None,
    count_offset: int = 0,
) -> Flow:
    """AdEMAMix with decoupled weight decay; the rule is that of `scale_by_ademamix`.

    Args:
      learning_rate: number or schedule.
      b1, b2, b3, alpha, b3_warmup, alpha_warmup, eps, eps_root, mu_dtype, count_offset: see
        `scale_by_ademamix`.
      weight_decay: decoupled decay, multiplied by the rate.
      mask: leaves that decay; default all.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import ademamix
      >>> opt = ademamix(0.5, b3_warmup=100, alpha_warmup=100)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.5, 0.5]
    """
    return chain(
        scale_by_ademamix(
            *(b1, b2, b3, alpha, b3_warmup, alpha_warmup, eps, eps_root, mu_dtype, count_offset)
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
