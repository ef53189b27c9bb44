"""Backtracking along a direction."""

from typing import Any

import jax
import jax.numpy as jnp

from ..closures.checks import LossFunction, scalar_closure
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.functions import lift, lift_tree, maximum
from ..notation.hyperparameters import Hyperparameter
from ..notation.known import choose, repeat
from ..notation.signal import Signal
from ..notation.steps import delay
from ..notation.values import Leaves, is_missing, working


@checked()
def backtracking(
    value_fn: Signal,
    params: Signal,
    direction: Signal,
    start: Hyperparameter = 1.0,
    *,
    decrease_factor: Hyperparameter = 0.5,
    sufficient_decrease: Hyperparameter = 1e-4,
    max_steps: int = 20,
    max_step: Hyperparameter | None = None,
    min_step: float = 0.0,
    slack: bool = False,
) -> Signal:
    """The first step s of start, start * decrease_factor, ... that decreases the loss enough.

    A function of signals.

        f(x + s p) - f(x) <= sufficient_decrease * s * <grad f(x), p>

    A scalar signal. If none of them does, it is the last one. A loss that is not a number counts
    as no decrease. The slope comes from `value_fn`, so a gradient that was clipped or averaged on
    its way does not matter.

    Args:
      value_fn: params -> loss, the input of that name or a closure signal.
      params: the input `params`.
      direction: p, with the sign with which it is added; its missing leaves do not move.
      start: first step; number or scalar signal.
      decrease_factor: between 0 and 1.
      sufficient_decrease: the fraction of the linear decrease that is asked for.
      max_steps: how often the step is decreased at most.
      max_step: an upper bound on every step after the first.
      min_step: a step that is decreased below it is the last one, whatever the loss there.
      slack: forgive one rounding of the loss: add the machine epsilon to the right-hand side.

    References:
      Armijo 1966, Minimization of functions having Lipschitz continuous first partial derivatives.
    """
    return lift_tree(_searched, "backtracking", context=True, out="scalar")(
        value_fn,
        params,
        direction,
        start,
        decrease_factor,
        sufficient_decrease,
        max_step,
        max_steps=max_steps,
        min_step=min_step,
        slack=slack,
    )


def _searched(
    context: Context,
    value_fn: LossFunction,
    params: Leaves,
    direction: Leaves,
    start: float | jax.Array,
    factor: float | jax.Array,
    fraction: float | jax.Array,
    max_step: float | jax.Array | None,
    max_steps: int,
    min_step: float,
    slack: bool,
) -> jax.Array:
    along = loss_along(context, value_fn, direction)
    zero = jnp.zeros((), context.scalar_dtype)
    value, slope = jax.jvp(along, (zero,), (jnp.ones_like(zero),))
    forgiven = jnp.finfo(value.dtype).eps if slack else 0

    def is_enough(step: jax.Array) -> jax.Array:
        return along(step) - value <= fraction * step * slope + forgiven

    def shrink(
        _: int | jax.Array, carry: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        step, done = carry
        smaller = step * factor
        if max_step is not None:
            smaller = jnp.minimum(smaller, max_step)
        step = jnp.where(done, step, jnp.asarray(smaller, step.dtype))
        done = choose(done, lambda: jnp.asarray(True), lambda: is_enough(step))
        done = done | (step < min_step) if min_step else done
        return step, done

    first = jnp.asarray(start, context.scalar_dtype)
    if max_steps == 0:
        return first
    # the last step is taken whatever the loss there, so it is not evaluated
    step, done = repeat(max_steps - 1, shrink, (first, is_enough(first)))
    last = step * factor if max_step is None else jnp.minimum(step * factor, max_step)
    return jnp.where(done, step, jnp.asarray(last, step.dtype))


def loss_along(context: Context, value_fn: LossFunction, direction: Leaves) -> Any:
    """s -> loss at params + s * direction, in working precision."""
    at = context.whole
    assert at is not None
    scalar_closure(value_fn, at.tree(), context.label)

    def moved(param: jax.Array, towards: jax.Array, step: jax.Array) -> jax.Array:
        if is_missing(towards):
            return param
        return (working(param) + step.astype(towards.real.dtype) * towards).astype(param.dtype)

    def along(step: jax.Array) -> jax.Array:
        pairs = zip(at.values, direction.values, strict=True)
        point = Leaves((moved(param, towards, step) for param, towards in pairs), at.treedef)
        return value_fn(point.tree()).astype(context.scalar_dtype)

    return along


def _changed(context: Context, value_fn: LossFunction, params: Leaves, update: Leaves) -> Any:
    along = loss_along(context, value_fn, update)
    zero = jnp.zeros((), context.scalar_dtype)
    return along(zero + 1) - along(zero)


loss_change = lift_tree(
    _changed,
    "loss_change",
    context=True,
    out="scalar",
    doc="`loss_change(value_fn, params, update)`: f(params + update) - f(params), a scalar signal.",
)


@checked()
def keeps_loss(value_fn: Signal, params: Signal, update: Signal) -> Signal:
    """False where an update would blow the loss up; a boolean scalar signal.

    A function of signals.

    The loss is blown up where it is not finite, or so large that the largest loss of all steps so
    far vanishes beside it in rounding. That is no matter of choice, as a sufficient decrease is:
    no run that is of use to anybody gets there.

    Args:
      value_fn: params -> loss, the input of that name.
      params: the input `params`.
      update: a tree signal, with the sign with which it is added.
    """
    largest = delay(0.0, name="largest_loss")
    before, after = (_loss_at(value_fn, params, update, step=step) for step in (0, 1))
    largest << maximum(largest, _magnitude(before))
    return _is_within(after, largest.written)


def _loss_of(
    context: Context, value_fn: LossFunction, params: Leaves, update: Leaves, step: int
) -> jax.Array:
    return loss_along(context, value_fn, update)(jnp.asarray(step, context.scalar_dtype))


_loss_at = lift_tree(_loss_of, "loss_at", context=True, out="scalar")
_magnitude = lift(lambda x: jnp.where(jnp.isfinite(x), jnp.abs(x), 0), "magnitude")
_is_within = lift(
    lambda x, bound: jnp.isfinite(x) & (x * jnp.finfo(x.dtype).eps <= bound), "is_within"
)
