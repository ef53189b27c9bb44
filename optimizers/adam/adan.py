"""Adan."""

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
    debiased_root,
    decay_weights,
    difference,
    divide,
    divide_or_zero,
    ema,
    flow,
    global_norm,
    handed_on,
    is_neutral,
    minimum,
    named,
    scale_by_learning_rate,
    scheduled,
    square,
    transformation,
    where,
)
from ...transforms.step_size import DecayForm


@transformation()
def scale_by_adan(
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    max_grad_norm: NonNegative = 0.0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam with Nesterov's momentum, written with the change of the gradient.

        y_t = g_t - g_{t-1},    y_1 = 0
        m_t = b1 m_{t-1} + (1 - b1) g_t
        d_t = b2 d_{t-1} + (1 - b2) y_t
        n_t = b3 n_{t-1} + (1 - b3) (g_t + b2 y_t)^2
        u_t = (m_t / (1 - b1^t) + b2 d_t / (1 - b2^t)) / (sqrt(n_t / (1 - b3^t)) + eps)

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the momentum of differences, in [0, 1).
      b3: decay of the second moment, in [0, 1).
      eps: added to the debiased root, and to the norm by which gradients are clipped.
      max_grad_norm: gradients are first multiplied by min(1, max_grad_norm / (norm + eps)), with
        the norm over all leaves; 0 does not clip.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Xie et al. 2022, Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models
      (arXiv 2208.06677), and sail-sg/Adan, whose betas and bias corrections we follow: the paper's
      betas are one minus these, and it corrects nothing. Its restarts are left out.
    """

    def step(g: Signal) -> Signal:
        g = _clipped(g, max_grad_norm, eps)
        y = g >> named("previous_grad", difference(from_first=True))
        m = g >> named("mu", ema(b1))
        d = y >> named("delta", ema(b2))
        n = square(g + b2 * y) >> named("nu", ema(b3))
        ahead = (m >> debias(b1)) + b2 * (d >> debias(b2))
        return divide(ahead, debiased_root(n, b3, eps), eps)

    return flow(step)


def _clipped(g: Signal, max_norm: NonNegative, eps: NonNegative) -> Signal:
    if is_neutral(max_norm):
        return g
    factor = minimum(1.0, divide_or_zero(max_norm, global_norm(g) + eps))
    return g * where(scheduled(max_norm) > 0, factor, 1.0)


@method(
    "Xie et al. 2022, Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models",
    arxiv="2208.06677",
    tags=("adam", "nesterov", "decoupled-decay"),
)
@transformation(renamed={"eps_root": "there is none, as with Optax's eps_root = 0"})
def adan(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    max_grad_norm: NonNegative = 0.0,
    no_prox: bool = False,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adan; the rule is that of `scale_by_adan`.

    Args:
      learning_rate: number or schedule; 5 to 10 times AdamW's.
      b1, b2, b3, eps, max_grad_norm: see `scale_by_adan`.
      weight_decay: decay w, in the proximal form (x - eta u) / (1 + eta w).
      mask: leaves that decay; default all.
      no_prox: decay as AdamW instead, x (1 - eta w) - eta u.
      mu_dtype, nu_dtype: see `scale_by_adan`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adan
      >>> opt = adan(0.5)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.5, 0.5]
    """
    form: DecayForm = "decoupled" if no_prox else "proximal"
    return chain(
        handed_on(scale_by_adan),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, form, learning_rate=learning_rate, mask=mask),
    )
