"""Positive-negative momentum."""

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.hyperparameters import Decay, Number, Scalar
from ..notation.signal import Signal
from ..notation.steps import delay, scheduled


@transformation()
def positive_negative_momentum(
    b1: Decay = 0.9, pnm_beta: Number = 1.0, noise_beta: Number | None = None
) -> Flow:
    r"""Two momenta, each fed every other gradient, one weighted positively, one negatively.

    A transformation to send signals through.

    .. math::
        m_t &= b_1^2 m_{t-2} + (1 - b_1^2) g_t \\
        u_t &= \frac{(1 + \beta) m_t - \beta m_{t-1}}{\sqrt{(1 + n)^2 + n^2}}

    with beta = `pnm_beta`, n = `noise_beta` and m zero before the first step. The average of the
    gradients stays, their noise is amplified.

    Args:
      b1: decay of the momenta, squared since each is updated at every other step.
      pnm_beta: weight of the older momentum.
      noise_beta: the weight in the normalization; default `pnm_beta`.

    References:
      Xie et al. 2021, Positive-Negative Momentum (arXiv 2103.17182).
    """

    def step(g: Signal) -> Signal:
        beta = scheduled(pnm_beta)
        n = beta if noise_beta is None else scheduled(noise_beta)
        squared = scheduled(b1) ** 2
        last, before = delay(g, name="last"), delay(g, name="before_last")
        new = squared * before + (1 - squared) * g
        before << last
        last << new
        return ((1 + beta) * new - beta * last) / _length(1 + n, n)

    return flow(step)


def _length(a: Scalar, b: Scalar) -> Scalar:
    return (a * a + b * b) ** 0.5
