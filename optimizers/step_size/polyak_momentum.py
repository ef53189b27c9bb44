"""Polyak step sizes with momentum."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    Number,
    Positive,
    Signal,
    decay_weights,
    delay,
    divide_or_zero,
    flow,
    global_dot,
    global_norm,
    maximum,
    minimum,
    named,
    saturate,
    scheduled,
    trace,
    transformation,
    where,
)
from ...transforms.control import at_finite_losses

Variant = Literal["mag", "smag", "hb", "shb"]


def _over_square(x: Signal, norm: Signal) -> Signal:
    """x / norm^2, 0 where the norm is; the square of a norm of 1e-30 or 1e20 is no number."""
    return divide_or_zero(divide_or_zero(x, norm), norm)


@method(
    "Wang, Johansson & Zhang 2023, Generalized Polyak Step Size for First Order Optimization with "
    "Momentum",
    arxiv="2305.12939",
    tags=("own-rate", "momentum"),
    learning_rate=None,
)
@transformation()
def polyak_momentum(
    variant: Variant = "smag",
    momentum: Decay = 0.9,
    max_learning_rate: optax.ScalarOrSchedule | None = 0.1,
    c: Positive = 1.0,
    f_min: Number = 0.0,
    weight_decay: NonNegative = 0.0,
    smoothness: Positive | None = None,
    clamp: bool = False,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    r"""Momentum whose rate brings the loss, to first order, down to its smallest value.

    Averaged gradients ("mag" and, with batches, "smag"):

    .. math::
        d_t = \mu d_{t-1} + g_t, \qquad \eta_t = \frac{f_t - f_{min}}{c \|d_t\|^2}, \qquad
        \Delta_t = -\eta_t d_t - \eta_t \lambda \theta_t

    Heavy ball ("hb" and, with batches, "shb"):

    .. math::
        \eta_t = \frac{(f_t - f_{min}) / c + \mu \langle g_t, \Delta_{t-1} \rangle}{\|g_t\|^2}
            + \frac{1}{2 L}, \qquad
        \Delta_t = -\eta_t g_t + \mu \Delta_{t-1} - \eta_t \lambda \theta_t

    with norms and products over the whole tree, the last term of the rate only where L is given,
    and :math:`\eta_t` capped. Without momentum this is Polyak's step. Where the norm is 0, so is
    the step.

    Args:
      variant: "smag", "mag" (the same with c = 1 and no cap), "hb" or "shb".
      momentum: mu, in [0, 1).
      max_learning_rate: the cap, a number or schedule; None for none.
      c: divides the loss gap.
      f_min: the smallest value of the loss; 0 under interpolation.
      weight_decay: lambda, multiplied by the rate.
      smoothness: L, for the heavy balls.
      clamp: no step goes uphill, as one with f_t below `f_min` would.
      mu_dtype: storage of the first moments; default at least float32.

    Returns:
      The optimizer; `update` needs `value`, the loss at the params, without the decay, on the
      batch of the gradient. Its state is the size of the params.

    Raises:
      FlowError: for a variant or hyper-parameter out of range, or without `value`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import polyak_momentum
      >>> opt = polyak_momentum(max_learning_rate=None)
      >>> x = jnp.array([3.0, -4.0])                     # loss |x|^2 / 2
      >>> opt.update(x, opt.init(x), x, value=12.5)[0].tolist()
      [-1.5, 2.0]

    References:
      Wang, Johansson & Zhang 2023, Generalized Polyak Step Size for First Order Optimization with
      Momentum (arXiv 2305.12939). There is no official code; that c divides the loss gap alone in
      "shb" is our reading.
    """
    if variant == "mag":
        c, max_learning_rate = 1.0, None

    def limited(rate: Signal) -> Signal:
        rate = maximum(rate, 0.0) if clamp else rate
        return rate if max_learning_rate is None else minimum(rate, max_learning_rate)

    def averaged(g: Signal, value: Signal) -> Signal:
        # beyond the format its rate is 0, and 0 times infinity is no number
        d = saturate(g >> named("trace", trace(momentum)))
        rate = limited(_over_square((value - f_min) / c, global_norm(d)))
        return -rate * d >> decay_weights(weight_decay, "decoupled", learning_rate=rate)

    def heavy_ball(g: Signal, value: Signal) -> Signal:
        last = delay(g, name="last_update")
        norm = global_norm(g)
        smooth = 0.0 if smoothness is None else where(norm == 0, 0.0, 0.5 / scheduled(smoothness))
        gap = (value - f_min) / c + momentum * global_dot(g, last)
        rate = limited(_over_square(gap, norm) + smooth)
        return last << (
            momentum * last - rate * g
            >> decay_weights(weight_decay, "decoupled", learning_rate=rate)
        )

    rule = averaged if variant.endswith("mag") else heavy_ball
    return at_finite_losses(flow(rule, name="polyak_momentum"))
