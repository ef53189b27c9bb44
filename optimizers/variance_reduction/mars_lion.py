"""MARS-Lion."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Number,
    chain,
    ema,
    flow,
    handed_on,
    named,
    sign,
    transformation,
)
from .mars import descend, for_matrices, mars


@transformation()
def scale_by_mars_lion(
    b1: Decay = 0.95,
    gamma: Number = 0.025,
    exact: bool = False,
    optimize_1d: bool = False,
    b1_1d: Decay = 0.9,
    b2_1d: Decay = 0.95,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """The sign of the momentum of variance-reduced gradients; plain Adam on other leaves.

        c_t = g_t + gamma b1 / (1 - b1) (g_t - p_t),   clipped to norm 1 leaf by leaf
        m_t = b1 m_{t-1} + (1 - b1) c_t
        u_t = sign(m_t)

    with p_t the gradient before, zero at first. Leaves that are not matrices get the Adam direction
    of g_t with b1_1d, b2_1d, eps.

    Args:
      b1: decay of the momentum, in [0, 1); also weighs the correction.
      gamma: strength of the correction.
      exact: p_t is the extra input `previous_grads`, the gradient of this batch at the previous
        params.
      optimize_1d: treat all leaves as matrices.
      b1_1d, b2_1d, eps: Adam's, for other leaves.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Yuan et al. 2024, MARS: Unleashing the Power of Variance Reduction for Training Large Models
      (arXiv 2411.10438), and the authors' code.
    """
    signed = chain(named("mu", ema(b1)), flow(lambda m: sign(m)))
    return for_matrices(mars(signed, gamma, b1, exact), b1_1d, b2_1d, eps, optimize_1d)


@method(
    "Yuan et al. 2024, MARS: Unleashing the Power of Variance Reduction for Training Large Models",
    arxiv="2411.10438",
    tags=("tracked-mean", "sign", "decoupled-decay"),
)
@transformation()
def mars_lion(
    learning_rate: optax.ScalarOrSchedule = 3e-3,
    b1: Decay = 0.95,
    weight_decay: NonNegative = 0.0,
    gamma: Number = 0.025,
    exact: bool = False,
    optimize_1d: bool = False,
    learning_rate_1d: optax.ScalarOrSchedule = 3e-3,
    b1_1d: Decay = 0.9,
    b2_1d: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay_1d: NonNegative = 0.1,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """MARS-Lion; the rule is that of `scale_by_mars_lion`.

    Args:
      learning_rate: for matrices; number or schedule. The default was tuned for MARS-AdamW.
      b1, gamma, exact, optimize_1d, b1_1d, b2_1d, eps: see `scale_by_mars_lion`.
      weight_decay: decoupled decay of matrices, multiplied by their rate.
      learning_rate_1d, weight_decay_1d: for other leaves; see `mars_adamw`.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_mars_lion`.

    Returns:
      The optimizer; it needs `params`. Its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mars_lion
      >>> opt = mars_lion(0.5)
      >>> params = jnp.array([[1.0, -4.0]])
      >>> opt.update(params, opt.init(params), params)[0].tolist()
      [[-0.5, 0.5]]
    """
    direction = handed_on(scale_by_mars_lion)
    return descend(
        direction,
        learning_rate,
        weight_decay,
        optimize_1d,
        learning_rate_1d,
        weight_decay_1d,
        mask,
    )
