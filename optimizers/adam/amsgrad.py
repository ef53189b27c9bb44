"""AMSGrad."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    Signal,
    chain,
    debias,
    divide,
    ema,
    flow,
    handed_on,
    named,
    running_max,
    scale_by_learning_rate,
    sqrt,
    square,
    transformation,
)


@transformation()
def scale_by_amsgrad(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    max_of: Literal["corrected", "raw"] = "corrected",
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam whose second moment never falls.

        m_t = b1 m_{t-1} + (1 - b1) g_t
        v_t = b2 v_{t-1} + (1 - b2) g_t^2
        D_t = max(D_{t-1}, v_t / (1 - b2^t))             max_of="corrected"
        D_t = max(x_{t-1}, v_t) / (1 - b2^t)             max_of="raw", x the running maximum
        u_t = m_t / (1 - b1^t) / (sqrt(D_t + eps_root) + eps)

    A single spike stays in the maximum for ever: clip in front.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root.
      eps_root: added under the root.
      mu_dtype: storage dtype of m.
      bias_correction_mu: debias m.
      bias_correction_nu: debias v. The paper has neither correction.
      max_of: take the maximum of the debiased v ("corrected", as optax: large early values stay) or
        of v itself ("raw", as PyTorch: it shrinks as the correction fades).
      nu_dtype: storage of the second moments; default at least float32.

    References:
      Reddi, Kale & Kumar 2018, On the Convergence of Adam and Beyond. The paper's projection onto a
      feasible set is left out, as in every implementation.
    """

    def step(g: Signal) -> Signal:
        m = g >> named("mu", ema(b1, dtype=mu_dtype))
        v = square(g) >> named("nu", ema(b2))
        if max_of == "raw":
            v = v >> named("nu_max", running_max())
        if bias_correction_nu:
            v = v >> debias(b2)
        if max_of == "corrected":
            v = v >> named("nu_max", running_max())
        m = m >> debias(b1) if bias_correction_mu else m
        return divide(m, sqrt(v + eps_root) + eps, eps)

    return flow(step)


@method(
    "Reddi, Kale & Kumar 2018, On the Convergence of Adam and Beyond",
    arxiv="1904.09237",
    tags=("adam",),
)
@transformation()
def amsgrad(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    max_of: Literal["corrected", "raw"] = "corrected",
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """AMSGrad, with the signature of `optax.amsgrad`; the rule is that of `scale_by_amsgrad`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu, max_of: see
        `scale_by_amsgrad`.
      nu_dtype: see `scale_by_amsgrad`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import amsgrad
      >>> opt = amsgrad(0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params))
      >>> [round(float(u), 3) for u in updates]
      [-0.5, 0.5]
    """
    return chain(
        handed_on(scale_by_amsgrad),
        scale_by_learning_rate(learning_rate),
    )
