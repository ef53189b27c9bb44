"""AdEMAMix."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.typing import ArrayLike

from ...registry import method
from ...schedules.ademamix import ademamix_alpha_schedule, ademamix_b3_schedule
from ...transforms import (
    Decay,
    DType,
    Flow,
    Hyperparameter,
    Length,
    Mask,
    NonNegative,
    Scalar,
    Signal,
    chain,
    debiased_root,
    decay_weights,
    divide,
    ema,
    flow,
    handed_on,
    lift,
    momentum,
    named,
    scale_by_learning_rate,
    square,
    step_count,
    transformation,
)


@transformation()
def scale_by_ademamix(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 5.0,
    b3_warmup: Length | None = None,
    alpha_warmup: Length | None = None,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    count_offset: Length = 0,
    *,
    nu_dtype: DType | None = None,
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
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Pagliardini, Ablin & Grangier 2024, The AdEMAMix Optimizer: Better, Faster, Older (arXiv
      2409.03137), and the optax file of apple/ml-ademamix, which we follow. Its PyTorch file counts
      from 1, has alpha 2, and 1e-8 inside the logarithm of the half-life.
    """

    def step(g: Signal) -> Signal:
        fast = g >> named("m1", momentum(b1, "debiased", dtype=mu_dtype))
        slow = g >> named("m2", ema(_warmed(b3, b3_warmup, _b3_at), dtype=mu_dtype))
        v = square(g) >> named("nu", ema(b2))
        ahead = fast + _warmed(alpha, alpha_warmup, _alpha_at) * slow
        return divide(ahead, debiased_root(v, b2, eps, eps_root), eps)

    def _warmed(value: Hyperparameter, warmup: int | None, at: Callable[..., Any]) -> Scalar:
        count = step_count() - 1
        if callable(value):
            return lift(value, "schedule")(count + count_offset)
        return value if warmup is None else lift(at, "warm-up")(count, value, b1)

    def _alpha_at(count: jax.Array, end: float | jax.Array, _: float | jax.Array) -> ArrayLike:
        return ademamix_alpha_schedule(end, alpha_warmup, count_offset=count_offset)(count)

    def _b3_at(count: jax.Array, end: float | jax.Array, start: float | jax.Array) -> ArrayLike:
        return ademamix_b3_schedule(end, start, b3_warmup, count_offset)(count)

    return flow(step)


@method(
    "Pagliardini, Ablin & Grangier 2024, The AdEMAMix Optimizer: Better, Faster, Older",
    arxiv="2409.03137",
    tags=("adam", "decoupled-decay", "momentum"),
)
@transformation()
def ademamix(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 5.0,
    b3_warmup: Length | None = None,
    alpha_warmup: Length | None = None,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    mu_dtype: DType | None = None,
    count_offset: Length = 0,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdEMAMix with decoupled weight decay; the rule is that of `scale_by_ademamix`.

    Args:
      learning_rate: number or schedule.
      b1, b2, b3, alpha, b3_warmup, alpha_warmup, eps, eps_root, mu_dtype, count_offset: see
        `scale_by_ademamix`.
      weight_decay: decoupled decay, multiplied by the rate.
      mask: leaves that decay; default all.
      nu_dtype: see `scale_by_ademamix`.

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
        handed_on(scale_by_ademamix),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )
