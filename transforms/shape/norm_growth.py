"""Norms that grow by no more than a factor from step to step."""

from ..accumulate.moments import divide
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import leaf_norm, minimum, saturate, where
from ..notation.hyperparameters import AtLeastOne, NonNegative
from ..notation.signal import Signal
from ..notation.steps import delay, step_count


@transformation()
def limit_norm_growth(max_growth: AtLeastOne = 1.01, eps: NonNegative = 1e-8) -> Flow:
    """Shortens each leaf that grows too fast.

    A transformation to send signals through.

        n_t = min(|g_t|, max_growth (n_{t-1} + eps)),   n_1 = |g_1|
        u_t = n_t g_t / |g_t|

    After a step with a gradient of zero the norm starts from eps.

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
        allowed = where(step_count() > 1, minimum(size, max_growth * (past + eps)), size)
        past << allowed
        return g * divide(allowed, size, 0.0)

    return flow(step)
