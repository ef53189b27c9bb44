"""Sophia-G."""

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
    Step,
    chain,
    clip,
    decay_weights,
    ema,
    every,
    flow,
    handed_on,
    named,
    scale_by_learning_rate,
    scheduled,
    transformation,
)
from ....transforms.curvature import Floor, bartlett_diagonal, with_floor


@transformation()
def scale_by_sophia_g(
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-15,
    gamma: Positive = 0.04,
    clip_threshold: Positive = 1.0,
    update_interval: Period = 10,
    batch_size: Size | None = None,
    eps_mode: Floor = "add",
    first_estimate: Step = 2,
    key: Key = 0,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Momentum over a Gauss-Newton diagonal, clipped entry by entry.

        h_t = b2 h_{t-1} + (1 - b2) B ghat_t^2      each k-th step, else h_{t-1}
        m_t = b1 m_{t-1} + (1 - b1) g_t
        u_t = clip(m_t / (gamma h_t + eps), -scheduled(clip_threshold), clip_threshold)

    ghat is the gradient of the mean cross entropy at labels that the model draws itself, B the
    number of positions in that mean: forgetting B makes h a thousand times too small, and the
    method sign momentum. Neither average is debiased.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the curvature, in [0, 1).
      eps: guards the denominator.
      gamma: share of the curvature; the larger, the fewer entries are clipped.
      clip_threshold: largest entry of the direction.
      update_interval: k.
      batch_size: B; default the number of positions of the logits.
      eps_mode: "add" (official code) or "max": max(gamma h, eps) (paper).
      first_estimate: the estimates fall on the steps t = 1 (mod k) from this one on. 2 is the
        official loop, whose first k steps are sign momentum; 1 is the paper's.
      key: seed or key of the labels.
      sampler: `(key, count, params) -> labels` in place of the draw; count is 0 at the first step.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Liu et al. 2023, Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
      Pre-training (arXiv 2305.14342). We follow the official code where it differs (eps, b1, the
      first estimate); it clips the global norm of ghat before it is squared, which we do not.
    """
    estimate = chain(bartlett_diagonal(key, batch_size, sampler), ema(b2))

    def step(g: Signal) -> Signal:
        m = g >> named("mu", ema(b1))
        h = g >> named("hessian", every(update_interval, estimate, start=first_estimate))
        return clip(
            m / with_floor(gamma * h, eps, eps_mode), -scheduled(clip_threshold), clip_threshold
        )

    return flow(step)


@method(
    "Liu et al. 2023, Sophia: A Scalable Stochastic Second-order Optimizer for Language Model "
    "Pre-training",
    arxiv="2305.14342",
    tags=("curvature", "closure", "noise", "bounded", "decoupled-decay"),
    learning_rate=1e-3,
)
@transformation()
def sophia_g(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-15,
    gamma: Positive = 0.04,
    clip_threshold: Positive = 1.0,
    weight_decay: NonNegative = 0.1,
    update_interval: Period = 10,
    batch_size: Size | None = None,
    eps_mode: Floor = "add",
    first_estimate: Step = 2,
    key: Key = 0,
    mask: Mask | None = None,
    sampler: Sampler | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Sophia-G with decoupled weight decay; the rule is that of `scale_by_sophia_g`.

    Needs `logits_fn`, from the params to the logits (..., C) of the positions in the mean loss, or
    to `(logits, mask)`; or `hessian_diag`, the estimate multiplied by B. The recipe for GPT-2
    small: rate 6e-4 after 2000 warm-up steps, gamma 0.05, decay 0.2, gradients clipped to norm 1.

    Args:
      learning_rate: number or schedule; it also multiplies the decay.
      b1, b2, eps, gamma, clip_threshold: see `scale_by_sophia_g`.
      weight_decay: decoupled decay.
      update_interval, batch_size, eps_mode, first_estimate, key, sampler: see
        `scale_by_sophia_g`.
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: see `scale_by_sophia_g`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sophia_g
      >>> params, opt = jnp.array([1.0, -1.0]), sophia_g(0.5, weight_decay=0.0)
      >>> logits_fn = lambda x: jnp.stack([x, -x])
      >>> opt.update(2 * params, opt.init(params), params, logits_fn=logits_fn)[0].tolist()
      [-0.5, 0.5]
    """
    return chain(
        handed_on(scale_by_sophia_g),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )
