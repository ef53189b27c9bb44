"""Weight decay in proportion to the typical size of a step."""

from ..accumulate.ema import debias, ema
from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.compose import named
from ..notation.functions import divide_or_zero, global_size, global_sum, sqrt, square, where
from ..notation.hyperparameters import Decay, Hyperparameter, NonNegative
from ..notation.signal import Signal
from ..notation.steps import scheduled
from .weight_decay import decay_weights


@checked()
def typical_gradient(second_moment: Signal, offset: NonNegative = 0.0) -> Signal:
    """The root mean square over all entries of the tree, from the (debiased) average of squares.

    A function of signals.

    Args:
      second_moment: a tree signal.
      offset: added to its sum.
    """
    return sqrt((offset + global_sum(second_moment)) / global_size(second_moment))


@checked()
def stable_decay(weight_decay: Hyperparameter, typical: Signal) -> Signal:
    """weight_decay / typical, and 0 where that exceeds 1: vanishing gradients tell no scale.

    A function of signals.

    Args:
      weight_decay: number, schedule or scalar signal.
      typical: see `typical_gradient`.
    """
    decay = scheduled(weight_decay)
    return where(typical >= decay, divide_or_zero(decay, typical), 0)


@transformation()
def stable_weight_decay(
    weight_decay: NonNegative = 1e-4, b2: Decay = 0.999, offset: NonNegative = 0.0
) -> Flow:
    r"""Adds weight decay divided by the root mean square of all gradient entries of the tree.

    A transformation to send signals through.

    .. math::
        u + \frac{\lambda}{s} \theta, \qquad
        s = \sqrt{\frac{1}{N} \Bigl(o + \sum_{i=1}^N \hat v_i\Bigr)}

    with :math:`\hat v` the debiased average of the squared incoming updates. In a chain it stands
    before the learning rate. Where s is 0 nothing decays.

    Args:
      weight_decay: lambda; number, schedule or scalar signal.
      b2: decay of the average of squares.
      offset: o, added to the sum of the averages.

    References:
      Xie, Sato & Sugiyama 2020, Stable Weight Decay Regularization (arXiv 2011.11152), with the
      mean over the whole tree of Wright & Demeure 2021, Ranger21 (arXiv 2106.13731).
    """

    def step(u: Signal) -> Signal:
        v = square(u) >> named("nu", ema(b2)) >> debias(b2)
        decay = divide_or_zero(scheduled(weight_decay), typical_gradient(v, offset))
        return u >> decay_weights(decay)

    return flow(step)
