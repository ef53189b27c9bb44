"""Norms that grow by no more than a factor from step to step."""

from ..accumulate.moments import divide
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import leaf_norm, minimum, saturate, where
from ..notation.hyperparameters import AtLeastOne, NonNegative
from ..notation.signal import Signal
from ..notation.steps import delay, step_count

NEXT_TO_NONE = 1e-6
"""Below that share of it a norm says nothing about another."""


@transformation()
def limit_norm_growth(max_growth: AtLeastOne = 1.01, eps: NonNegative = 1e-8) -> Flow:
    """Shortens each leaf that grows too fast.

    A transformation to send signals through.

        n_t = min(|g_t|, max_growth (n_{t-1} + eps)),   n_1 = |g_1|
        u_t = n_t g_t / |g_t|

    A norm below a millionth of n, that of a zero say, leaves n as it was; and an n below a
    millionth of a norm, as after a start next to none, limits nothing. By the paper's rule alone a
    leaf would go on from eps after either, and take a thousand steps to grow back.

    Args:
      max_growth: largest ratio of the norms of two steps.
      eps: added to the norm of the step before.

    References:
      Chen et al. 2024, Fira (arXiv 2410.01623), which calls it the norm-growth limiter.
    """

    def step(g: Signal) -> Signal:
        g = saturate(g)  # the share of an infinite norm is 0
        size = leaf_norm(g)
        past = delay(size, name="norm")
        measured = (step_count() > 1) & (past >= NEXT_TO_NONE * size)
        allowed = where(measured, minimum(size, max_growth * (past + eps)), size)
        past << where(size < NEXT_TO_NONE * past, past, allowed)
        return g * divide(allowed, size, 0.0)

    return flow(step)
