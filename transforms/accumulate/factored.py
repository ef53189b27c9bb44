"""Second moments that are kept as row and column averages."""

import jax
import jax.numpy as jnp
import numpy as np

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.compose import named
from ..notation.functions import lift, sqrt
from ..notation.hyperparameters import Decay, Length, NonNegative
from ..notation.parts import merge, split
from ..notation.roots import inverse_root, squared
from ..notation.selection import leaf_where
from ..notation.signal import Signal
from .ema import ema


@transformation()
def scale_by_factored_rms(
    b2: Decay, eps: NonNegative = 1e-30, factored: bool = True, min_dim_size_to_factor: Length = 128
) -> Flow:
    """Divides by the root of a second moment of which only row and column means are kept.

    A transformation to send signals through.

        Q_t = g_t^2 + eps
        R_t = b2 R_{t-1} + (1 - b2) mean of Q_t along the largest axis
        C_t = b2 C_{t-1} + (1 - b2) mean of Q_t along the second largest axis
        u_t = g_t (R_t / mean(R_t))^(-1/2) C_t^(-1/2)

    The mean of R runs along the second largest axis; further axes are batch axes; of equal axes the
    later one counts as larger; squares are kept within the format. A leaf with fewer than two axes,
    or whose second largest is shorter than `min_dim_size_to_factor`, keeps
    V_t = b2 V_{t-1} + (1 - b2) Q_t, and u_t = g_t V_t^(-1/2).
    Nothing is debiased: b2 is meant to be 0 at the first step.

    Args:
      b2: decay; number, schedule or scalar signal.
      eps: added to the squares.
      factored: False keeps V for all leaves.
      min_dim_size_to_factor: see above.

    References:
      Shazeer & Stern 2018, Adafactor (arXiv 1804.04235); axes as in `optax.scale_by_factored_rms`.
    """

    def is_factored(leaf: jax.Array | jax.ShapeDtypeStruct) -> bool:
        enough = factored and leaf.ndim >= 2 and leaf.size > 0
        return enough and leaf.shape[_axes(leaf)[1]] >= min_dim_size_to_factor

    def step(g: Signal) -> Signal:
        wide, narrow = split(bounded_square(g) + eps, leaf_where(is_factored))
        rows = mean_along_largest(wide, 0) >> named("v_row", ema(b2))
        columns = mean_along_largest(wide, 1) >> named("v_col", ema(b2))
        v = narrow >> named("v", ema(b2))
        row = sqrt(mean_along_largest(rows, 1, wide)) * _inverse_root(rows)
        return merge(g * _inverse_root(columns) * row, g * _inverse_root(v))

    return flow(step)


@lift
def bounded_square(g: jax.Array) -> jax.Array:
    """The square of every entry, kept within the format with room for sums."""
    # An infinite average would stay for ever, and its share of itself is no number.
    return jnp.minimum(squared(g), jnp.finfo(g.dtype).max / 16)


def _axes(leaf: jax.Array | jax.ShapeDtypeStruct) -> tuple[int, int]:
    """The axes of the largest and the second largest size."""
    order = np.argsort(leaf.shape, kind="stable")
    return int(order[-1]), int(order[-2])


@checked()
def mean_along_largest(x: Signal, which: int, like: Signal | None = None) -> Signal:
    """The mean along the largest (0) or second largest (1) axis of `like`, default x; it stays.

    A function of signals.

    Args:
      x: a tree signal of matrices, or of more dimensions.
      which: 0 or 1. Of equal axes the later one counts as larger.
      like: whose axes are meant, where x has lost one.
    """

    def mean(a: jax.Array, shaped: jax.Array) -> jax.Array:
        axis = _axes(shaped)[which]
        return jnp.sum(a / a.shape[axis], axis=axis, keepdims=True)

    return lift(mean, "mean")(x, x if like is None else like)


# A zero whose eps has underflowed divides nothing: the gradient there is 0, too.
_inverse_root = lift(inverse_root, "inverse_root")
