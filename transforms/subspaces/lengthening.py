"""By how much a transformation lengthens what goes through it in a subspace."""

from typing import Literal

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.functions import lift
from ..notation.roots import norm
from ..notation.signal import Signal
from .bases import Basis

Per = Literal["channel", "tensor"]


@checked()
def lengthening(
    subspace: Signal, low: Signal, moved: Signal, per: Per = "channel", eps: float = 1e-8
) -> Signal:
    """|moved| / (|low| + eps), in shapes that multiply the whole leaves.

    A function of signals.

    Args:
      subspace: bases of one side of each matrix.
      low: coordinates in it.
      moved: what a transformation has made of these.
      per: "channel": of each row where the rows are projected, of each column where the columns
        are; "tensor": of each leaf.
      eps: added to the divisor.

    References:
      Chen et al. 2024, Fira (arXiv 2410.01623); Zhu et al. 2024, APOLLO (arXiv 2412.05270).
    """

    def ratio(basis: Basis, x: jax.Array, y: jax.Array) -> jax.Array:
        axis = None if per == "tensor" else int(basis.left is None)
        before, after = (norm(z, axis, keepdims=True) for z in (x, y))
        length = before + eps
        return after / jnp.where(length == 0, 1, length)

    return lift(ratio, "lengthening")(subspace, low, moved)
