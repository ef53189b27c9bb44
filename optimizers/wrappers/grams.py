"""Grams."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    chain,
    decay_weights,
    handed_on,
    scale_by_adam,
    scale_by_learning_rate,
    transformation,
)
from .sign_of_gradient import sign_of_gradient


@transformation()
def scale_by_grams(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    bias_correction: bool = True,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """The size of Adam's step with the sign of the present gradient.

        m_t = b1 m_{t-1} + (1 - b1) g_t
        v_t = b2 v_{t-1} + (1 - b2) g_t^2
        u_t = sqrt(1 - b2^t) / (1 - b1^t) sign(g_t) |m_t| / (sqrt(v_t) + eps)

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, before bias correction.
      bias_correction: False leaves out the first factor.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Cao, Li & Song 2024, Grams: Gradient Descent with Adaptive Momentum Scaling (arXiv
      2412.17107). The paper adds eps after bias correction; we follow the authors' code.
    """
    adam = handed_on(scale_by_adam, eps_before_correction=True)
    return sign_of_gradient(adam, descends=False)


@method(
    "Cao, Li & Song 2024, Grams: Gradient Descent with Adaptive Momentum Scaling",
    arxiv="2412.17107",
    tags=("sign", "adam", "decoupled-decay"),
)
@transformation()
def grams(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    bias_correction: bool = True,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Grams; the rule is that of `scale_by_grams`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, bias_correction: see `scale_by_grams`.
      weight_decay: decoupled decay, multiplied by the rate.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_grams`.

    Returns:
      The optimizer; its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import grams
      >>> opt = grams(0.5)
      >>> state = opt.init(jnp.zeros(1))
      >>> _, state = opt.update(jnp.array([2.0]), state)
      >>> print(opt.update(jnp.array([-1.0]), state)[0].round(3))
      [0.133]
    """
    return chain(
        handed_on(scale_by_grams),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "decoupled", learning_rate=learning_rate, mask=mask),
    )
