"""NovoGrad."""

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
    decay_weights,
    divide,
    flow,
    handed_on,
    hypot,
    is_neutral,
    leaf_norm,
    named,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    trace,
    transformation,
)
from ...transforms.accumulate import running_rms


@transformation()
def scale_by_novograd(
    b1: Decay = 0.95,
    b2: Decay = 0.98,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    grad_averaging: bool = False,
    average_first: bool = False,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Heavy ball of gradients that are normalised layer by layer.

        v_t = b2 v_{t-1} + (1 - b2) |g_t|^2,    v_1 = |g_1|^2      (one per leaf; its root is kept)
        d_t = g_t / (sqrt(v_t + eps_root) + eps) + weight_decay x_{t-1}
        m_t = b1 m_{t-1} + d_t,    m_1 = d_1

    The decay is decoupled from the second moment but enters the momentum.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the squared norms, in [0, 1).
      eps: added to the root.
      eps_root: added under the root.
      weight_decay: coefficient of the decay.
      mask: leaves that decay; default all.
      grad_averaging: put (1 - b1) d_t into the momentum, except at the first step.
      average_first: at the first step, too.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Ginsburg et al. 2019, Stochastic Gradient Methods with Layer-wise Adaptive Moments for
      Training of Deep Networks (arXiv 1905.11286), which optax follows as we do. The authors' code,
      NVIDIA/OpenSeq2Seq, has eps inside the root and averages the first gradient, too; it takes a
      step with v = 0 for the first.
    """
    damped_from_start = grad_averaging and average_first
    dampening = b1 if grad_averaging and not average_first else 0.0

    def step(g: Signal) -> Signal:
        r = leaf_norm(g) >> named("nu_root", running_rms(b2, from_first=True))
        root = r if is_neutral(eps_root) else hypot(r, sqrt(scheduled(eps_root)))
        d = divide(g, root + eps, eps) >> decay_weights(weight_decay, mask=mask)
        d = (1 - scheduled(b1)) * d if damped_from_start else d
        return d >> named("mu", trace(b1, dampening=dampening))

    return flow(step)


@method(
    "Ginsburg et al. 2019, Stochastic Gradient Methods with Layer-wise Adaptive Moments for "
    "Training of Deep Networks",
    arxiv="1905.11286",
    tags=("layerwise", "low-memory", "large-batch", "decoupled-decay"),
)
@transformation()
def novograd(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.95,
    b2: Decay = 0.98,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    grad_averaging: bool = False,
    average_first: bool = False,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """NovoGrad; the rule is that of `scale_by_novograd`.

    Stacked (scanned) layers in one leaf share one norm: use `jax.vmap` over them.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, eps_root, weight_decay, mask, grad_averaging, average_first: see
        `scale_by_novograd`; optax's defaults are b1 0.9, b2 0.25, eps 1e-6.
      mu_dtype, nu_dtype: see `scale_by_novograd`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import novograd
      >>> opt = novograd(1.0)
      >>> params = jnp.array([3.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.6, 0.8]
    """
    return chain(
        handed_on(scale_by_novograd),
        scale_by_learning_rate(learning_rate),
    )
