"""Rebuilding a run from the scalars of its steps."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..notation.checks import checked
from ..notation.errors import FlowError
from ..notation.layout import COUNT


@checked()
def replay(
    opt: optax.GradientTransformationExtraArgs,
    params: optax.Params,
    counts: Sequence[int] | jax.Array,
    slopes: Sequence[Any] | jax.Array,
) -> optax.Params:
    """The params after the recorded steps of a run, without a loss and without data.

    A function of params.

    A step of a zeroth-order method is known from its number and its slopes: the directions are
    redrawn from the key. A log of a few bytes per step is therefore a checkpoint. Each step runs
    through `opt.update`, whose directions, optimizer and schedules are those of the run; the result
    is the run's to the last bit.

    Args:
      opt: the optimizer of the run, with its key; one whose state the slopes determine, so no
        reading of losses beside them.
      params: the params before the first recorded step.
      counts: numbers of the steps, from 1 on, ascending. The state of `opt` (momentum, say) is as
        at the start before the first of them.
      slopes: what `observe(opt, "slopes")` kept at each: a scalar, or one number per sample.

    Returns:
      The params.

    Raises:
      ValueError: if the two differ in length, or `opt` takes no slopes.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain import observe, observed
      >>> from gradchain.optimizers import mezo
      >>> from gradchain.transforms.zeroth_order import replay
      >>> opt, x, log = mezo(0.1), jnp.ones(3), []
      >>> watched = observe(opt, "slopes")
      >>> state = watched.init(x)
      >>> for _ in range(3):
      ...     u, state = watched.update(None, state, x, value_fn=lambda x: jnp.sum(x**2))
      ...     x = optax.apply_updates(x, u)
      ...     log.append(float(observed(state)["slopes"]))
      >>> bool(jnp.allclose(replay(opt, jnp.ones(3), [1, 2, 3], log), x, rtol=1e-6))
      True
    """
    steps, log = np.asarray(counts, np.int64), np.asarray(slopes)
    if steps.ndim != 1 or len(steps) != len(log):
        raise FlowError(f"replay: {steps.size} counts, but slopes of shape {log.shape}")
    if len(steps) and (steps[0] < 1 or np.any(np.diff(steps) <= 0)):
        raise FlowError("replay: counts must ascend, from 1 on")
    step = jax.jit(replayed_step(opt), donate_argnums=0)
    carry = jax.tree.map(jnp.copy, (params, opt.init(params)))
    for count, slope in zip(steps, log, strict=True):
        carry = step(carry, jnp.asarray(count - 1, jnp.int32), slope)
    return carry[0]


def replayed_step(opt: optax.GradientTransformationExtraArgs) -> Any:
    """`(params and state, number of steps before, slopes) -> params and state`."""

    def step(carry: Any, before: jax.Array, slopes: jax.Array) -> Any:
        params, state = carry
        state = optax.tree_utils.tree_set(state, **{COUNT: before})
        nothing: Any = None
        updates, state = opt.update(nothing, state, params, slopes=slopes)
        return optax.apply_updates(params, updates), state

    return step
