"""The k-th largest entry of a leaf or of a whole tree."""

import jax
import jax.numpy as jnp

from ..notation.checks import checked
from ..notation.functions import lift, lift_tree
from ..notation.hyperparameters import Fraction
from ..notation.ordering import kth_largest
from ..notation.sharding import replicated
from ..notation.signal import Signal
from ..notation.values import Leaves


@checked()
def largest_magnitude(g: Signal, fraction: Fraction, scope: str = "global") -> Signal:
    """The entry that follows the floor(n * fraction) largest ones in absolute value.

    A function of signals.

    Where that is 0, because a batch does not use most entries, n counts the others alone.

    Args:
      g: a tree signal of n entries.
      fraction: in [0, 1]; of 1, no entry follows and the result is 0.
      scope: "global" for one scalar of the whole tree, "leaf" for one per leaf.
    """
    if scope == "leaf":
        return lift(lambda x, share: _following(_entries(x), share), "largest_magnitude")(
            g, fraction
        )

    def over_tree(tree: Leaves, fraction: float | jax.Array) -> jax.Array:
        entries = [_entries(leaf) for leaf in tree.present()]
        return _following(jnp.concatenate(entries or [jnp.zeros(0)]), fraction)

    return lift_tree(over_tree, "largest_magnitude", out="scalar")(g, fraction)


def _following(magnitudes: jax.Array, fraction: float | jax.Array) -> jax.Array:
    size = magnitudes.size
    if not size:
        return jnp.zeros((), magnitudes.dtype)
    present = jnp.sum(magnitudes > 0, dtype=jnp.int32)
    rank = jnp.asarray(_rank(size, fraction), jnp.int32)
    of_present = jnp.floor(present.astype(magnitudes.dtype) * fraction).astype(jnp.int32)
    rank = jnp.where(rank < present, rank, of_present)
    return jnp.where(rank < size, kth_largest(magnitudes, jnp.minimum(rank, size - 1)), 0)


def _rank(size: int, fraction: float | jax.Array) -> int | jax.Array:
    # On the host in double precision, as the published code: 0.1 * n may lie just below an integer.
    if isinstance(fraction, int | float):
        return int(size * fraction)
    return jnp.floor(size * fraction).astype(jnp.int32)


def _entries(leaf: jax.Array) -> jax.Array:
    return jnp.abs(replicated(leaf)).ravel()
