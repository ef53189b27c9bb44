"""Keeping, taking or reversing a step by the losses that it leads to."""

import jax
import jax.numpy as jnp

from ..closures.checks import LossFunction
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.functions import lift, lift_tree
from ..notation.known import each
from ..notation.signal import Signal
from ..notation.steps import tap
from ..notation.values import Leaves
from .losses import base_point, loss_function, moved


@checked()
def best_of_three(value_fn: Signal, params: Signal, update: Signal) -> Signal:
    """The update, its opposite, or none: by the loss at theta, theta + u and theta - u.

    A function of signals.

        l1 > l0:   0 if l0 < l2 else -u
        l1 <= l0:  u if l1 < l2 else -u

    with l0, l1, l2 the losses at the three points; one that is NaN counts as infinite.

    Args:
      value_fn: params -> loss, the input of that name.
      params: the input `params`.
      update: a tree signal, with the sign with which it is added.
    """
    sign = tap("choice", _better_sign(_losses(value_fn, params, update)))
    return sign * update


def _losses_of(
    context: Context, value_fn: LossFunction | None, params: Leaves, update: Leaves
) -> jax.Array:
    point = base_point(context, params)
    loss = loss_function(context, value_fn, point)
    steps = jnp.asarray([0.0, 1.0, -1.0], context.scalar_dtype)
    return each(lambda step: loss(moved(point, update, step)), steps, beside=update)


def _shape(context: Context, *_: object) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((3,), context.scalar_dtype)


_losses = lift_tree(_losses_of, "losses", context=True, out=_shape)


def _sign_of(losses: jax.Array) -> jax.Array:
    stay, ahead, back = jnp.where(jnp.isnan(losses), jnp.inf, losses)
    worse = jnp.where(stay < back, 0.0, -1.0)
    return jnp.where(ahead > stay, worse, jnp.where(ahead < back, 1.0, -1.0)).astype(losses.dtype)


_better_sign = lift(_sign_of, "better_sign")
