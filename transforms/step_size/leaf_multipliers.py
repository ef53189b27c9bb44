"""Numbers that differ from leaf to leaf."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.checks import checked
from ..notation.context import Context
from ..notation.functions import lift_tree
from ..notation.signal import Signal
from ..notation.values import Leaves


@checked()
def leaf_multipliers(
    like: Signal, numbers: optax.Params | Callable[[Any], Any], name: str = "numbers"
) -> Signal:
    """A signal with one number for each leaf, such as multipliers of the learning rate.

    A function of signals.

    Args:
      like: a tree signal.
      numbers: a tree of numbers shaped like the params, or a function from the params (of which
        only shapes and dtypes may be used) to such a tree.
      name: what messages call them.
    """

    def given(context: Context, tree: Leaves) -> Leaves:
        shaped = tree if context.params is None else context.params
        chosen = numbers(shaped.tree()) if callable(numbers) else numbers
        values = Leaves.given(tree.treedef, chosen, name)
        return tree.map(lambda leaf, x: jnp.asarray(x, _real(leaf)), values)

    def shape(context: Context, tree: Leaves) -> Leaves:
        return tree.map(lambda leaf: jax.ShapeDtypeStruct((), _real(leaf)))

    return lift_tree(given, "leaf_multipliers", context=True, out=shape)(like)


def _real(leaf: jax.Array | jax.ShapeDtypeStruct) -> jnp.dtype:
    return jnp.finfo(leaf.dtype).dtype
