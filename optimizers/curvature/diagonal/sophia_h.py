"""Sophia-H."""

from typing import Literal

import optax

from ....registry import method
from ....transforms import (
    Decay,
    DType,
    Flow,
    Key,
    Mask,
    NonNegative,
    Period,
    Positive,
    Sampler,
    Signal,
    Size,
    chain,
    clip,
    decay_weights,
    delay,
    flow,
    handed_on,
    hutchinson,
    momentum,
    named,
    scale_by_learning_rate,
    scheduled,
    step_count,
    transformation,
    when,
)
from ....transforms.curvature import with_floor
from ....transforms.trees import Distribution


@transformation()
def scale_by_sophia_h(
    b1: Decay = 0.96,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-12,
    gamma: Positive = 0.01,
    clip_threshold: Positive = 1.0,
    update_interval: Period = 10,
    num_samples: Size = 1,
    probe: Distribution = "rademacher",
    bias_correction: bool = False,
    refresh: Literal["before", "after"] = "before",
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Momentum over an average of Hessian diagonals, clipped entry by entry.

        m_t = b1 m_{t-1} + (1 - b1) g_t
        h_t = b2 h_{t-1} + (1 - b2) u * (H u)      at every `update_interval`-th step, else h_{t-1}
        d_t = clip(m_t / max(gamma h_t, eps), -scheduled(clip_threshold), clip_threshold)

    with a random u. h starts at zero and is not debiased, so nearly all entries are clipped in the
    first refreshes; entries of non-positive curvature move by the sign of m.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the diagonal, in [0, 1).
      eps: the least denominator.
      gamma: factor of the diagonal.
      clip_threshold: largest entry of the direction.
      update_interval: steps between two estimates; those between cost nothing.
      num_samples: probes per estimate.
      probe: "rademacher" or "gaussian" (the paper's).
      bias_correction: debias m.
      refresh: "before" estimates at t = 1, k + 1, ... and uses the new h at once (the paper);
        "after" at t = k, 2k, ... and uses it from the next step on (Levanter), so that the first k
        steps go by the sign of m.
      key: seed or key of the probes.
      sampler: `(key, count, params) -> tree` of probes in place of random ones; count is 0 at the
        first step.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Liu et al. 2023, Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
      Pre-training (arXiv 2305.14342), Algorithms 1 and 3. The authors' repository has the G variant
      only.
    """
    first = refresh == "before"

    def step(g: Signal) -> Signal:
        m = g >> named("mu", momentum(b1, "debiased" if bias_correction else "ema"))
        due = (step_count() - first) % update_interval == 0
        estimate = g >> when(due, hutchinson(key, num_samples, probe, sampler), otherwise=0)
        past = delay(g, name="hessian")
        h = past << past + due * (1 - scheduled(b2)) * (estimate - past)
        curvature = gamma * (h if first else past)
        return clip(m / with_floor(curvature, eps), -scheduled(clip_threshold), clip_threshold)

    return flow(step)


@method(
    "Liu et al. 2023, Sophia: A Scalable Stochastic Second-order Optimizer for Language Model "
    "Pre-training",
    arxiv="2305.14342",
    tags=("curvature", "closure", "noise", "bounded", "decoupled-decay"),
)
@transformation()
def sophia_h(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.96,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-12,
    gamma: Positive = 0.01,
    clip_threshold: Positive = 1.0,
    weight_decay: NonNegative = 0.2,
    update_interval: Period = 10,
    num_samples: Size = 1,
    probe: Distribution = "rademacher",
    bias_correction: bool = False,
    refresh: Literal["before", "after"] = "before",
    key: Key = 0,
    mask: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Sophia-H: clipped steps along momentum over curvature; the rule is `scale_by_sophia_h`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, gamma, clip_threshold, update_interval, num_samples, probe, bias_correction,
        refresh, key, sampler: see `scale_by_sophia_h`.
      weight_decay: decoupled decay, multiplied by the rate; never clipped.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_sophia_h`.

    Returns:
      The optimizer; `update` needs `params`, and `value_fn` (params -> loss on this batch) or a
      ready `hessian_diag`. Its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range, or if neither input is given.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import sophia_h
      >>> opt = sophia_h(0.5, weight_decay=0.0)
      >>> loss = lambda x: jnp.sum(jnp.array([1.0, 1e6]) * x**2)
      >>> x = jnp.array([1.0, -1.0])
      >>> u, _ = opt.update(jax.grad(loss)(x), opt.init(x), x, value_fn=loss)
      >>> u.round(3).tolist()
      [-0.5, 0.5]
    """
    return chain(
        handed_on(scale_by_sophia_h),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )
