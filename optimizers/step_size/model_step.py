"""Step sizes from a model of the loss."""

from ...transforms import (
    Decay,
    Scalar,
    Signal,
    delay,
    divide_or_zero,
    ema,
    global_dot,
    maximum,
    minimum,
    named,
    where,
)


def model_step_size(
    g: Signal,
    params: Signal,
    value: Signal,
    m: Signal,
    norms: tuple[Signal, Scalar],
    *,
    decay: Decay,
    rho: Scalar,
    rate: Scalar,
    shrink: Scalar = 1.0,
    lower_bound: float = 0.0,
    adapt_lower_bound: bool = False,
) -> Signal:
    """How far to go along a momentum until the model of the loss reaches its lower bound.

    The model is the average of the past linearisations, whose slope is the momentum m; f and c are
    the averages, with the decay of m, of `value` and of <g, params>. With A = `shrink`:

        tau = min(rate / rho, max(A (f - rho lb) + <m, params> - A c, 0) / |m|^2)

    and 0 where the norm is 0.

    Args:
      g: the gradient at `params`.
      params: the parameters.
      value: the loss at `params`, of the same function as g.
      m: the average of gradients.
      norms: two scalars whose product is the squared norm of m in the metric of the method; that of
        gradients of 1e-30 or of many of 1e18 is no number.
      decay: the decay of m; number or scalar signal.
      rho: the weight that the averages add up to so far; 1 if they start with the first batch.
      rate: the largest step.
      shrink: A, 1 + rate * weight decay.
      lower_bound: lower bound of the loss, where lb starts and below which it never falls.
      adapt_lower_bound: estimate the bound along the way.

    Returns:
      tau, a scalar signal.

    References:
      Schaipp et al. 2023, MoMo: Momentum Models for Adaptive Learning Rates (arXiv 2305.07583).
    """

    def over(excess: Signal) -> Signal:
        return divide_or_zero(divide_or_zero(excess, norms[0]), norms[1])

    f = value >> named("value_average", ema(decay))
    c = global_dot(g, params) >> named("offset_average", ema(decay))
    d = global_dot(m, params)
    if not adapt_lower_bound:
        excess = shrink * (f - rho * lower_bound) + d - shrink * c
        return minimum(rate / rho, over(maximum(excess, 0)))
    past = delay(1.0 * lower_bound, name="lower_bound")
    cap = shrink * f + d - shrink * c
    lowered = maximum(cap / (2 * shrink * rho), lower_bound)
    bound = where(cap < shrink * rho * past, lowered, past)
    excess = maximum(cap - shrink * rho * bound, 0)
    tau = minimum(rate / rho, over(excess))
    past << maximum((f + d - c - tau * norms[0] * norms[1] / 2) / rho, lower_bound)
    return tau
