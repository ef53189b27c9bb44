"""INNAprop."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    FlowError,
    Mask,
    NonNegative,
    NonNegativeConstant,
    PositiveConstant,
    Signal,
    debiased_root,
    decay_weights,
    delay,
    divide,
    ema,
    flow,
    handed_on,
    named,
    scheduled,
    square,
    transformation,
    zeros_like,
)


@transformation()
def scale_by_innaprop(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    alpha: NonNegativeConstant = 0.1,
    beta: PositiveConstant = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    mask: Mask | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """The dynamical inertial Newton system, driven by RMSprop's direction.

        y_t = x_{t-1} (1 - eta weight_decay)
        v_t = b2 v_{t-1} + (1 - b2) g_t^2,    D_t = sqrt(v_t / (1 - b2^t)) + eps
        psi_t = psi_{t-1} (1 - eta / beta) + eta (1 / beta - alpha) y_t
        x_t = y_t + eta / (beta - eta) ((1 - alpha beta) y_t - psi_t) - eta beta g_t / D_t

    psi starts at (1 - alpha beta) x_0, so that the velocity starts at zero. With alpha beta = 1 it
    stays zero, and the method is RMSprop at the rate eta beta. The rate, its sign and the decay are
    part of the rule, and so are the params themselves: nothing may change the update afterwards.

    Args:
      learning_rate: eta, number or schedule; less than beta at every step.
      alpha: viscous damping.
      beta: Newtonian damping.
      b2: decay of the second moment, in [0, 1).
      eps: added to the debiased root.
      weight_decay: decoupled decay, multiplied by the rate.
      mask: leaves that decay; default all.
      nu_dtype: storage of the second moments; default at least float32.

    Raises:
      ValueError: if a constant rate is not less than beta.

    References:
      Bolte, Boustany, Pauwels & Purica 2024, A second-order-like optimizer with adaptive gradient
      scaling for deep learning (arXiv 2410.05871), and innaprop/innaprop, with b2 for its sigma. We
      write x_t as a difference to y_t, which the published form loses to cancellation.
    """
    if (
        isinstance(learning_rate, int | float)
        and isinstance(beta, int | float)
        and not learning_rate < beta
    ):
        raise FlowError(f"innaprop: learning_rate={learning_rate} must be less than beta={beta}")

    def step(g: Signal, params: Signal) -> Signal:
        rate = scheduled(learning_rate)
        decay = zeros_like(g) >> decay_weights(
            weight_decay, "decoupled", learning_rate=rate, mask=mask
        )
        y = params + decay
        v = square(g) >> named("nu", ema(b2))
        past = delay(params, lambda x: (1 - alpha * beta) * x, name="psi")
        psi = past << past * (1 - rate / beta) + rate * (1 / beta - alpha) * y
        inertia = rate / (beta - rate) * ((1 - alpha * beta) * y - psi)
        return decay + inertia - rate * beta * divide(g, debiased_root(v, b2, eps), eps)

    return flow(step)


@method(
    "Bolte, Boustany, Pauwels & Purica 2024, A second-order-like optimizer with adaptive gradient "
    "scaling for deep learning",
    arxiv="2410.05871",
    tags=("curvature", "decoupled-decay"),
)
@transformation()
def innaprop(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    alpha: NonNegativeConstant = 0.1,
    beta: PositiveConstant = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    mask: Mask | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """INNAprop; the rule, which includes rate and decay, is that of `scale_by_innaprop`.

    Args:
      learning_rate, b2, eps, weight_decay, mask: see `scale_by_innaprop`.
      alpha, beta: (0.1, 0.9) for long training, (2.0, 2.0) for short.
      nu_dtype: see `scale_by_innaprop`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import innaprop
      >>> opt = innaprop(0.1, alpha=0.5, beta=2.0, weight_decay=0.0)
      >>> params = jnp.array([1.0, -4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.2, 0.2]
    """
    return handed_on(scale_by_innaprop)
