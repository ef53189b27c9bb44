"""Lion's direction: the sign of a momentum."""

from ..accumulate.ema import interpolated_momentum
from ..notation import Flow, flow, named, sign, transformation
from ..notation.hyperparameters import Decay, DType


@transformation()
def scale_by_lion(b1: Decay = 0.9, b2: Decay = 0.99, mu_dtype: DType | None = None) -> Flow:
    """The sign of a momentum that looks further back than the direction it gives.

    A transformation to send signals through.

        c_t = b1 m_{t-1} + (1 - b1) g_t
        u_t = sign(c_t)
        m_t = b2 m_{t-1} + (1 - b2) g_t

    Args:
      b1: weight of the momentum in the direction, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      mu_dtype: storage dtype of m.

    References:
      Chen et al. 2023, Symbolic Discovery of Optimization Algorithms (arXiv 2302.06675). Paper,
      google/automl and optax agree.
    """

    return flow(lambda g: sign(g >> named("mu", interpolated_momentum(b1, b2, dtype=mu_dtype))))
