"""Measurements within a training loop, at every k-th step."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ...transforms import (
    Flow,
    FlowError,
    Period,
    Signal,
    delay,
    flow,
    lift_tree,
    step_count,
    tap,
    transformation,
)
from ...transforms.closures.checks import LossFunction
from ...transforms.notation.context import Context
from ...transforms.notation.known import choose
from ...transforms.notation.needs import missing_input
from ...transforms.notation.values import Leaves


@transformation()
def measured(
    inner: optax.GradientTransformation,
    measurements: Mapping[str, Callable[[Any, Any], ArrayLike]],
    update_interval: Period = 100,
) -> Flow:
    """Lets an optimizer tell numbers about the loss where it stands, now and then.

    Each measurement is a `tap` of its name: nothing is computed before somebody observes it.

        opt = observe(measured(adam(1e-3), {"sharpness": sharpness}), "sharpness")

    It is taken at the params of the first step and of every `update_interval`-th after it, and held
    in between.

    Args:
      inner: any optimizer.
      measurements: by name, functions `(value_fn, params) -> scalar` such as `sharpness`,
        `hessian_trace`, or a `functools.partial` of them.
      update_interval: steps from one measurement to the next.

    Returns:
      The optimizer; what is observed needs `params` and `value_fn`, on the batch of the step, or on
      a fixed one if the function has its own.

    Raises:
      ValueError: for names that are no identifiers; in update, without `value_fn`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import observe, observed
      >>> from gradchain.optimizers import hessian_trace, measured, sgd
      >>> opt = observe(measured(sgd(0.5), {"trace": hessian_trace}, update_interval=2), "trace")
      >>> x, loss = jnp.array([1.0]), lambda x: jnp.sum(x**4) / 12
      >>> state = opt.init(x)
      >>> for _ in range(3):
      ...     u, state = opt.update(x, state, x, value_fn=loss)
      ...     print(x, observed(state)["trace"])
      ...     x = x + u
      [1.] 1.0
      [0.5] 1.0
      [0.25] 0.0625
    """

    for name in measurements:
        if not name.isidentifier():
            raise FlowError(f"measured: the name {name!r} of a measurement must be an identifier")

    def step(g: Signal, params: Signal, value_fn: Signal | None = None) -> Signal:
        due = (step_count() - 1) % update_interval == 0
        for name, measure in measurements.items():
            past = delay(0.0, name=f"{name}_held")
            taken = lift_tree(
                _taken(measure), name, out="scalar", context=True, needs=("value_fn",)
            )
            tap(name, past << taken(due, value_fn, params, past))
        return g >> inner

    return flow(step)


def _taken(measure: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def taken(
        context: Context,
        due: jax.Array,
        value_fn: LossFunction | None,
        params: Leaves,
        past: jax.Array,
    ) -> jax.Array:
        if value_fn is None:
            raise FlowError(missing_input(context.label, "value_fn"))
        at = context.whole
        assert at is not None

        def now() -> jax.Array:
            return jnp.asarray(measure(value_fn, jax.lax.stop_gradient(at.tree())), past.dtype)

        return choose(due, now, lambda: past)

    return taken
