"""Gradients corrected by their change since the last step."""

from ...transforms import (
    Decay,
    Flow,
    Number,
    Positive,
    Signal,
    delay,
    flow,
    leaf_norm,
    maximum,
    saturate,
    scheduled,
    transformation,
)


@transformation()
def mars_correction(
    gamma: Number = 0.025, b1: Decay = 0.95, exact: bool = False, max_norm: Positive | None = 1.0
) -> Flow:
    """The gradient plus a share of its change, clipped to a norm leaf by leaf.

        c_t = g_t + gamma b1 / (1 - b1) (g_t - p_t)
        out = c_t / max(1, |c_t| / max_norm)

    Args:
      gamma: strength of the correction; it is multiplied by b1 / (1 - b1).
      b1: decay of the momentum that follows, in [0, 1).
      exact: p_t is the input `previous_grads`, the gradient of this batch at the previous params;
        otherwise the last step's gradient, zero at first.
      max_norm: largest Euclidean norm of a leaf; None does not clip.

    References:
      Yuan et al. 2024, MARS: Unleashing the Power of Variance Reduction for Training Large Models
      (arXiv 2411.10438), and the authors' code.
    """

    def corrected(g: Signal, previous: Signal) -> Signal:
        decay = scheduled(b1)
        c = saturate(g + scheduled(gamma) * decay / (1 - decay) * (g - previous))
        return c if max_norm is None else c / maximum(1, leaf_norm(c) / max_norm)

    def approximate(g: Signal) -> Signal:
        previous = delay(g, name="previous_grads")
        previous << g
        return corrected(g, previous)

    def with_previous(g: Signal, previous_grads: Signal) -> Signal:
        return corrected(g, previous_grads)

    return flow(with_previous if exact else approximate)
