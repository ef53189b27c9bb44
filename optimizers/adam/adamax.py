"""AdaMax."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Signal,
    chain,
    debias,
    decay_weights,
    divide,
    ema,
    flow,
    handed_on,
    named,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.accumulate import decayed_max


@transformation()
def scale_by_adamax(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam with a moment of infinite order: momentum over the largest magnitude seen.

        m_t = b1 m_{t-1} + (1 - b1) g_t
        u_t = max(b2 u_{t-1}, |g_t| + eps)
        d_t = m_t / (1 - b1^t) / u_t

    The first direction is nearly sign(g). A maximum has no bias, so u is not corrected.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: by which the maximum is forgotten, in [0, 1).
      eps: added to each magnitude inside the maximum, and decayed with it.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Kingma & Ba 2015, Adam: A Method for Stochastic Optimization (arXiv 1412.6980), section 7.1.
      The paper has no eps, and 0 / 0 where no gradient ever came; optax and PyTorch agree on the
      form above.
    """

    def step(g: Signal) -> Signal:
        m = g >> named("mu", ema(b1))
        u = g >> named("nu", decayed_max(b2, eps))
        return divide(m >> debias(b1), u, eps)

    return flow(step)


@method(
    "Kingma & Ba 2015, Adam: A Method for Stochastic Optimization",
    arxiv="1412.6980",
    tags=("adam", "decoupled-decay"),
    learning_rate=2e-3,
)
@transformation()
def adamax(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdaMax, with decoupled weight decay; the rule is that of `scale_by_adamax`.

    With `weight_decay` it is optax's `adamaxw`. PyTorch's decay is L2: put `decay_weights` in
    front for that.

    Args:
      learning_rate: number or schedule; 2e-3 in the paper.
      b1, b2, eps: see `scale_by_adamax`.
      weight_decay: decoupled decay, multiplied by the rate.
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: see `scale_by_adamax`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adamax
      >>> opt = adamax(0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params))
      >>> [round(float(u), 3) for u in updates]
      [-0.5, 0.5]
    """
    return chain(
        handed_on(scale_by_adamax),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )
