"""Positive-negative momentum."""

from typing import Any

from ..notation.build import Flow, flow
from ..notation.checks import any_number, transformation
from ..notation.signal import Signal
from ..notation.steps import delay


@transformation(pnm_beta=any_number, noise_beta=any_number)
def positive_negative_momentum(b1: Any = 0.9, pnm_beta: Any = 1.0, noise_beta: Any = None) -> Flow:
    r"""Two momenta, each fed every other gradient, one weighted positively, one negatively.

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
    n = pnm_beta if noise_beta is None else noise_beta

    def step(g: Signal) -> Signal:
        last, before = delay(g, name="last"), delay(g, name="before_last")
        new = b1**2 * before + (1 - b1**2) * g
        before << last
        last << new
        return ((1 + pnm_beta) * new - pnm_beta * last) / _length(1 + n, n)

    return flow(step)


def _length(a: Any, b: Any) -> Any:
    return (a * a + b * b) ** 0.5
