"""Steps of several micro-batches."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.build import Flow, flow
from ..notation.cell import Cell
from ..notation.checks import transformation
from ..notation.context import Context
from ..notation.functions import lift, lift_tree, where
from ..notation.hyperparameters import Period
from ..notation.receiver import through
from ..notation.signal import Delay, Signal
from ..notation.steps import delay, scheduled
from ..notation.values import Leaves
from .periods import resting


@transformation()
def accumulate(inner: optax.GradientTransformation, micro_batches: Period) -> Flow:
    """Runs a transformation on the means over several micro-batches, and rests in between.

    A transformation to send signals through.

        u = inner(mean of g, mean of value)    at each `micro_batches`-th update, else 0

    Averaged are the gradients, in float32 at least, and the loss `value`: so rules that look at the
    loss see that of the whole batch, where `optax.MultiSteps` hands on the last micro-batch's. All
    other inputs (`value_fn`, `layer_inputs`, ...) are those of the last micro-batch. Schedules and
    periods of the inner transformation count its own steps, and params rest between them.

    Args:
      inner: any transformation; a wrapper around a whole optimizer, clipping included.
      micro_batches: updates per step, which may be injected and changed while training.

    Returns:
      The transformation; its state has one copy of the gradient more.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradchain
      >>> from gradchain.optimizers import momo
      >>> opt = gradchain.accumulate(momo(10.0), micro_batches=2)
      >>> x = jnp.array(1.0)
      >>> state = opt.init(x)
      >>> for g, loss in ((1.0, 2.0), (3.0, 4.0)):       # the mean: gradient 2, loss 3
      ...     u, state = opt.update(jnp.array(g), state, x, value=loss)
      ...     print(float(u))
      0.0
      -1.5
    """

    def step(g: Signal, value: Signal | None = None) -> Signal:
        held = delay(0, name="micro_step")
        due = held + 1 >= scheduled(micro_batches)
        held << where(due, 0, held + 1)
        loss = _mean(value, delay(0.0, name="value"), held, due)
        mean = _mean(g, delay(g, name="grads"), held, due)
        return mean >> through("accumulate", _on_means(inner), due, loss)

    return flow(step)


def _mean(new: Signal | None, total: Delay, held: Signal, due: Signal) -> Signal:
    """The mean of what came since the last step, this one included."""
    now = _sum(total, new)
    total << where(due, 0.0, now)
    return _divided(now, held)


def _sum_of(total: jax.Array | Leaves, new: Any) -> jax.Array | Leaves:
    if new is None:  # a loss that is not given
        return total
    if isinstance(total, Leaves):
        return total.map(_added, new)
    return _added(total, jnp.asarray(new))


def _added(total: jax.Array, new: jax.Array) -> jax.Array:
    """An infinite one stays visible in the mean: NaN, as a state is read as finite."""
    new = new.astype(total.dtype)
    return total + (new + (new - new))


_sum = lift_tree(_sum_of, "sum", out=0)
_divided = lift(lambda total, held: total / (held + 1).astype(total.dtype), "mean")


def _on_means(inner: optax.GradientTransformation) -> Cell:
    """Runs where the second argument holds, with the third one as `value` where there is one."""
    cell = resting(inner, 0.0)

    def run(
        context: Context, state: Any, mean: Leaves, due: jax.Array, loss: jax.Array
    ) -> tuple[Any, Any]:
        extra = context.extra
        if extra.get("value") is not None:
            extra = {**extra, "value": loss}
        return cell.update(replace(context, extra=extra), state, mean, due)

    return replace(
        cell,
        init=lambda context, mean, due, loss: cell.init(context, mean, due),
        update=run,
        out=lambda context, mean, due, loss: cell.out(context, mean, due) if cell.out else mean,
        rebuild=lambda children: _on_means(children[0]),
    )
