"""Trust ratios: layers move in proportion to the size of their weights."""

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import divide_or_zero, leaf_norm, maximum, where
from ..notation.hyperparameters import NonNegative
from ..notation.signal import Signal


@transformation()
def scale_by_trust_ratio(
    min_norm: NonNegative = 0.0, trust_coefficient: NonNegative = 1.0, eps: NonNegative = 0.0
) -> Flow:
    """Scales each leaf by the norm of its weights over the norm of its update.

    A transformation to send signals through.

        u <- u * trust_coefficient |x| / (|u| + eps),    unchanged where |x| or |u| is 0

    As `optax.scale_by_trust_ratio`, with norms in at least float32.

    Args:
      min_norm: lower bound of both norms.
      trust_coefficient: multiplier.
      eps: added to the norm of the update.

    References:
      You et al. 2020, Large Batch Optimization for Deep Learning: Training BERT in 76 minutes.
    """

    def step(u: Signal, params: Signal) -> Signal:
        weight, update = (maximum(leaf_norm(x), min_norm) for x in (params, u))
        ratio = divide_or_zero(trust_coefficient * weight, update + eps)
        return u * where((weight == 0) | (update == 0), 1.0, ratio)

    return flow(step)
