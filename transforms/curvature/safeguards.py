"""What stands in for curvature that is not finite, and floors under what is divided by."""

from typing import Literal

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.crowds import by_stacks, of_stacks
from ..notation.functions import lift, lift_tree, maximum
from ..notation.hyperparameters import NonNegative
from ..notation.roots import maximum_over
from ..notation.signal import Signal
from ..notation.steps import tap
from ..notation.values import Leaves

Floor = Literal["add", "max"]


@checked()
def with_floor(x: Signal, eps: NonNegative, mode: Floor = "max") -> Signal:
    """x kept away from zero: x + eps ("add"), or max(x, eps) ("max").

    A function of signals.

    Where that is 0, because eps is, it is the least normal number: 0 over it is 0.
    """
    return _nonzero(x + eps if mode == "add" else maximum(x, eps))


def nonzero(x: jax.Array) -> jax.Array:
    """A leaf whose zeros are the least normal number of its dtype."""
    return jnp.where(x == 0, jnp.finfo(x.dtype).tiny, x)


@checked()
def finite_curvature(x: jax.Array) -> jax.Array:
    """A leaf of curvature whose non-finite entries take the largest finite magnitude in it.

    A function of arrays.

    What overflows is large: a large curvature gives a small step, where zero would give a large
    one. A leaf without any finite entry becomes ones.
    """
    if x.size == 0:
        return x
    finite = jnp.isfinite(x)
    largest = maximum_over(jnp.where(finite, jnp.abs(x), 0))
    return jnp.where(finite, x, jnp.where(jnp.any(finite), largest, 1).astype(x.dtype))


@of_stacks
def _all_finite(*trees: Leaves) -> jax.Array:
    arrays = jax.tree.leaves([by_stacks(tree) for tree in trees])
    found = [jnp.all(jnp.isfinite(x)) for x in arrays]
    return jnp.all(jnp.stack(found)) if found else jnp.asarray(True)


all_finite = lift_tree(
    _all_finite,
    "all_finite",
    doc="True as a scalar signal if every entry of these trees is finite.",
)


@checked()
def tapped_curvature(raw: Signal) -> Signal:
    """A curvature tree after `finite_curvature`; the tap "curvature_is_finite" says if it changed.

    A function of signals.

    Args:
      raw: a tree signal.
    """
    tap("curvature_is_finite", all_finite(raw))
    return _finite(raw)


_finite = lift(finite_curvature, "finite_curvature")
_nonzero = lift(nonzero, "nonzero")
