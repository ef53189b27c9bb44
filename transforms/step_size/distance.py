"""How far the params have come: the distances that set step sizes."""

import jax
import jax.numpy as jnp

from ..accumulate.initial import initial_params
from ..accumulate.sums import SquaredNorm
from ..notation.checks import checked
from ..notation.functions import global_squared_norm, leaf_sum, lift, maximum, sqrt, square
from ..notation.hyperparameters import Hyperparameter
from ..notation.parts import merge, split
from ..notation.selection import Selector
from ..notation.signal import Signal
from ..notation.steps import delay


@checked()
def leaf_squared_norm(stacked: Selector | None = None) -> SquaredNorm:
    """The squared Euclidean norm of each leaf; of each layer where a leaf stacks layers.

    A function of a mask.

    Args:
      stacked: leaves that stack layers on their leading axis; default none.

    Returns:
      A function of a tree signal whose result broadcasts against the leaves.
    """
    if stacked is None:
        return lambda signal: leaf_sum(square(signal))

    def norm(signal: Signal) -> Signal:
        layers, others = split(signal, stacked)
        return merge(_layer_sum(square(layers)), leaf_sum(square(others)))

    return norm


def _sum_of_layers(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=tuple(range(1, x.ndim)), keepdims=True)


_layer_sum = lift(_sum_of_layers, "layer_sum")


@checked()
def largest_distance(
    params: Signal,
    smallest: Hyperparameter,
    squared_norm: SquaredNorm = global_squared_norm,
    *,
    squared: bool = False,
) -> Signal:
    """The largest distance so far of the params from those that `init` was given.

    A function of signals.

        r_t = max(r_{t-1}, |x_t - x_0|, smallest)

    Args:
      params: x.
      smallest: the least distance; a number, or a signal like the squared norm.
      squared_norm: `global_squared_norm`, or one of `leaf_squared_norm` for a distance of each
        leaf.
      squared: give, and keep, the squared distance; `smallest` is squared, too.

    Returns:
      A signal like the squared norm.
    """
    distance = squared_norm(params - initial_params())
    distance = distance if squared else sqrt(distance)
    past = delay(distance, name="max_dist")
    return past << maximum(maximum(past, distance), smallest)
