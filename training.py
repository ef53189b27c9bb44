"""Flax training loops that hand extra inputs to the optimizer.

Many methods want more than a gradient: the loss (`value`), the loss as a function of the
parameters (`value_fn`), the logits (`logits_fn`). Linen's own `TrainState` drops them, and an NNX
model has to be turned into a function of its parameters first. This module needs Flax, the rest
of the package does not.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import optax

from .transforms import checked
from .transforms.notation.foreign import update_with_extra

try:
    from flax import nnx
    from flax.training import train_state
except ImportError as error:  # pragma: no cover
    raise ImportError("gradchain.training needs Flax: pip install 'gradchain[flax]'") from error

Model = TypeVar("Model", bound=nnx.Module)


class TrainState(train_state.TrainState):
    """Linen's `TrainState`, whose `apply_gradients` passes extra inputs on to the optimizer.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from gradchain.training import TrainState
      >>> loss = lambda params: jnp.sum(params["w"] ** 2)
      >>> state = TrainState.create(
      ...     apply_fn=None, params={"w": jnp.ones(2)}, tx=optax.polyak_sgd())
      >>> value, grads = jax.value_and_grad(loss)(state.params)
      >>> state = state.apply_gradients(grads=grads, value=value)
      >>> state.params["w"]
      Array([0.5, 0.5], dtype=float32)
    """

    def apply_gradients(self, *, grads: Any, **extra: Any) -> "TrainState":
        """One optimizer step.

        Args:
          grads: gradients at `params`, of the same structure.
          **extra: names of fields of the state (`batch_stats=...` of a subclass) are replaced, as
            Flax does; all others (`value=...`, `value_fn=...`) go to `tx.update`.

        Returns:
          The state after the step.
        """
        own = {field.name for field in fields(self)}
        replaced = {name: extra[name] for name in extra if name in own}
        inputs = {name: extra[name] for name in extra if name not in own}
        update = update_with_extra(self.tx)

        # The parent's bookkeeping (fp8 statistics that travel as gradients) stays the parent's.
        def update_with_inputs(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            return update(updates, state, params, **inputs)

        bound = self.replace(tx=optax.GradientTransformation(self.tx.init, update_with_inputs))
        after = train_state.TrainState.apply_gradients(bound, grads=grads, **replaced)
        return after.replace(tx=replaced.get("tx", self.tx))


@checked()
def nnx_value_fn(
    model: Model,
    loss_fn: Callable[[Model], Any],
    *,
    wrt: Any = nnx.Param,
    has_aux: bool = False,
) -> Callable[[Any], Any]:
    """The loss of an NNX model on one batch, as the `value_fn(params)` that optimizers ask for.

    `value_fn` is pure: each call starts from the model's batch statistics and random streams as
    they are now and throws their changes away, so two calls see the same dropout. Make it before
    the gradient is taken for it to see what the gradient saw.

    Args:
      model: the model; it is not changed.
      loss_fn: model -> loss on this batch, what `nnx.value_and_grad` differentiates.
      wrt: which variables are the parameters; the same filter as the optimizer's.
      has_aux: True when `loss_fn` returns `(loss, anything)`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from gradchain.training import nnx_value_fn
      >>> model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
      >>> value_fn = nnx_value_fn(model, lambda model: jnp.mean(model(jnp.zeros((4, 3))) ** 2))
      >>> value_fn(nnx.state(model, nnx.Param))
      Array(0., dtype=float32)
    """
    at = _at_params(model, wrt)

    def value_fn(params: Any) -> Any:
        loss = loss_fn(at(params))
        return loss[0] if has_aux else loss

    return value_fn


@checked()
def nnx_logits_fn(
    model: nnx.Module, *inputs: Any, wrt: Any = nnx.Param, **keywords: Any
) -> Callable[[Any], Any]:
    """What an NNX model returns for one batch, as the `logits_fn(params)` optimizers ask for.

    Args:
      model: the model; it is not changed.
      *inputs: what the model is called with.
      wrt: which variables are the parameters; the same filter as the optimizer's.
      **keywords: further arguments of the call.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from gradchain.training import nnx_logits_fn
      >>> model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
      >>> nnx_logits_fn(model, jnp.zeros((4, 3)))(nnx.state(model, nnx.Param)).shape
      (4, 2)
    """
    at = _at_params(model, wrt)
    return lambda params: at(params)(*inputs, **keywords)


def _at_params(model: Model, wrt: Any) -> Callable[[Any], Model]:
    """params -> a fresh copy of the model that has them."""
    graph, *states = nnx.split(model, wrt, ...)
    # Plain arrays: variables keep the trace they were made in and refuse to be changed inside a
    # grad or jvp, which is where `value_fn` is called; `merge` makes new ones out of arrays.
    rest = nnx.as_pure(states[-1])
    return lambda params: nnx.merge(graph, params, rest)
