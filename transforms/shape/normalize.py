"""Vectors of unit length."""

from ..notation.checks import checked
from ..notation.functions import divide_or_zero, lift, maximum
from ..notation.hyperparameters import Hyperparameter
from ..notation.roots import norm
from ..notation.signal import Signal


@checked()
def normalize(g: Signal, axis: int | None = None, min_norm: Hyperparameter = 0.0) -> Signal:
    """Divides by the Euclidean norm; a zero vector stays zero.

    A function of signals.

    Args:
      g: a tree signal.
      axis: along which the vectors lie; default the whole leaf. A scalar is a vector of its own.
      min_norm: lower bound of the divisor.
    """
    length = lift(lambda x: norm(x, axis if x.ndim else None, keepdims=True), "norm")(g)
    return divide_or_zero(g, maximum(length, min_norm))
