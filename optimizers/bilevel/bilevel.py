"""Bilevel descent by any two optimizers and any hyper-gradient."""

from typing import Any, NamedTuple

import jax
import optax

from ...registry import method
from ...transforms import Size, checked
from ...transforms.notation.known import repeat
from .hypergradients import Hypergradient, unrolled_hypergradient
from .stepper import BilevelStepper, Loss, check_losses, owned


class BilevelState(NamedTuple):
    """What `bilevel` keeps.

    Attributes:
      x: the upper variable.
      y: the lower variable.
      upper_state: of the upper optimizer.
      lower_state: of the lower optimizer.
    """

    x: Any
    y: Any
    upper_state: Any
    lower_state: Any


@method(
    "Franceschi et al. 2018, Bilevel Programming for Hyperparameter Optimization and Meta-Learning",
    arxiv="1806.04910",
    tags=("bilevel",),
    kind="stepper",
    required={
        "upper_tx": optax.sgd(0.1),
        "lower_tx": optax.sgd(0.1),
        "hypergradient": unrolled_hypergradient(),
    },
)
@checked()
def bilevel(
    upper_tx: optax.GradientTransformation,
    lower_tx: optax.GradientTransformation,
    hypergradient: Hypergradient,
    lower_steps: Size = 1,
) -> BilevelStepper:
    """Some steps of one optimizer at the lower level, then one of another at the upper level.

        lower_steps times:   y <- y + lower_tx(grad_y g(x, y))
        x <- x + upper_tx(hypergradient of f at (x, y))

    with f the upper and g the lower loss; y and the states of both optimizers go on from step to
    step. Both optimizers are given `value_fn`, the lower one also `value`.

    Args:
      upper_tx: any optimizer, of the upper variable.
      lower_tx: any optimizer, of the lower variable.
      hypergradient: `ift_neumann(...)`, `conjugate_gradient_hypergradient(...)`,
        `unrolled_hypergradient()`, or a function of their kind.
      lower_steps: how many.

    Returns:
      A `BilevelStepper`: `init(upper, lower)`, `step(state, upper_loss, lower_loss)`, with x and y
      in the state.

    Raises:
      ValueError: for a hyper-parameter out of range, or losses that return no scalar.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import bilevel, sgd, unrolled_hypergradient
      >>> f = lambda x, y: jnp.sum((y - 1.0) ** 2) / 2
      >>> g = lambda x, y: jnp.sum((y - x) ** 2) / 2
      >>> stepper = bilevel(sgd(1.0), sgd(0.5), unrolled_hypergradient())
      >>> state = stepper.step(stepper.init(jnp.array([0.0]), jnp.array([0.0])), f, g)
      >>> state.x.tolist()                       # y = 0, dy / dx = 1 / 2
      [0.5]

    References:
      Franceschi et al. 2018, Bilevel Programming for Hyperparameter Optimization and Meta-Learning
      (arXiv 1806.04910).
    """
    lower_opt, upper_opt = map(optax.with_extra_args_support, (lower_tx, upper_tx))

    def init(upper: optax.Params, lower: optax.Params) -> BilevelState:
        check_losses("bilevel", upper, lower)
        x, y = owned(upper), owned(lower)
        return BilevelState(x, y, upper_opt.init(x), lower_opt.init(y))

    def step(state: BilevelState, upper_loss: Loss, lower_loss: Loss) -> BilevelState:
        check_losses("bilevel", state.x, state.y, upper_loss=upper_loss, lower_loss=lower_loss)

        def solve(x: optax.Params) -> tuple[Any, Any]:
            def descend(_: int | jax.Array, carry: Any) -> Any:
                y, lower_state = carry
                value_fn = lambda y: lower_loss(x, y)  # noqa: E731
                value, slope = jax.value_and_grad(value_fn)(y)
                updates, lower_state = lower_opt.update(
                    slope, lower_state, y, value=value, value_fn=value_fn
                )
                return optax.apply_updates(y, updates), lower_state

            return repeat(lower_steps, descend, (state.y, state.lower_state))

        gradient, y, lower_state = hypergradient(upper_loss, lower_loss, state.x, solve)
        updates, upper_state = upper_opt.update(
            gradient, state.upper_state, state.x, value_fn=lambda x: upper_loss(x, y)
        )
        return BilevelState(optax.apply_updates(state.x, updates), y, upper_state, lower_state)

    return BilevelStepper(init, step)
