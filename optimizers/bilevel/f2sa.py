"""F2SA: bilevel problems with gradients alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import NonNegativeConstant, Positive, PositiveConstant, Size, checked
from ...transforms.notation.known import repeat
from .stepper import BilevelStepper, Loss, at_count, check_losses, moved, owned, plus


class F2saState(NamedTuple):
    """What `f2sa` keeps.

    Attributes:
      x: the upper variable.
      y: the lower variable that also heeds the upper loss.
      z: the one that minimises the lower loss alone.
      multiplier: of the next step.
      count: steps made.
    """

    x: Any
    y: Any
    z: Any
    multiplier: Any
    count: Any


@method(
    "Kwon et al. 2023, A Fully First-Order Method for Stochastic Bilevel Optimization",
    arxiv="2301.10945",
    tags=("bilevel",),
    kind="stepper",
    required={"learning_rate_y": 0.05, "learning_rate_z": 0.1},
)
@checked()
def f2sa(
    learning_rate_y: optax.ScalarOrSchedule,
    learning_rate_z: optax.ScalarOrSchedule,
    upper_ratio: Positive = 1.0,
    inner_steps: Size = 1,
    multiplier: PositiveConstant = 1.0,
    multiplier_increment: NonNegativeConstant = 0.1,
) -> BilevelStepper:
    r"""Bilevel descent on a penalised problem, without second derivatives.

    With f the upper and g the lower loss, `inner_steps` times

    .. math::
        z &\leftarrow z - \gamma \nabla_y g(x_k, z) \\
        y &\leftarrow y - \alpha (\nabla_y f(x_k, y) + \lambda_k \nabla_y g(x_k, y))

    then, at the new y and z,

    .. math::
        x_{k+1} = x_k - \xi \alpha \left( \nabla_x f(x_k, y)
        + \lambda_k (\nabla_x g(x_k, y) - \nabla_x g(x_k, z)) \right), \qquad
        \lambda_{k+1} = \lambda_k + \delta

    As the multiplier grows, the difference of the two gradients tends to the implicit term of the
    hyper-gradient. alpha times the multiplier must stay below 1 / (smoothness of g): let alpha fall
    where the multiplier grows, and gamma below 2 / (smoothness of g). Above, y and z leave every
    bound, and nothing is finite at last: losses of 1e9 want rates of 1e-9. Large multipliers cost
    digits.

    Args:
      learning_rate_y: alpha; number or schedule.
      learning_rate_z: gamma; number or schedule.
      upper_ratio: xi.
      inner_steps: steps at the lower level in each step.
      multiplier: the first lambda.
      multiplier_increment: delta.

    Returns:
      A `BilevelStepper`: `init(upper, lower)`, `step(state, upper_loss, lower_loss)`, with x, y and
      z in the state.

    Raises:
      ValueError: for a hyper-parameter out of range, or losses that return no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import f2sa
      >>> f = lambda x, y: jnp.sum((y - 1.0) ** 2) / 2
      >>> g = lambda x, y: jnp.sum((y - x) ** 2) / 2
      >>> stepper = f2sa(0.25, 0.5)
      >>> state = stepper.step(stepper.init(jnp.array([0.0]), jnp.array([0.0])), f, g)
      >>> state.x.tolist(), state.y.tolist()
      ([0.0625], [0.25])

    References:
      Kwon, Kwon, Wright & Nowak 2023, A Fully First-Order Method for Stochastic Bilevel
      Optimization (arXiv 2301.10945). There is no official code; the increment is constant.
    """

    def init(upper: optax.Params, lower: optax.Params) -> F2saState:
        check_losses("f2sa", upper, lower)
        start = jnp.asarray(multiplier, jnp.result_type(float))
        return F2saState(owned(upper), owned(lower), owned(lower), start, jnp.zeros((), jnp.int32))

    def step(state: F2saState, upper_loss: Loss, lower_loss: Loss) -> F2saState:
        x, count, weight = state.x, state.count, state.multiplier
        check_losses("f2sa", x, state.y, upper_loss=upper_loss, lower_loss=lower_loss)
        alpha, gamma, xi = (
            at_count(v, count) for v in (learning_rate_y, learning_rate_z, upper_ratio)
        )

        def inner(
            _: int | jax.Array, carry: tuple[optax.Params, optax.Params]
        ) -> tuple[optax.Params, optax.Params]:
            y, z = carry
            new_z = moved(z, gamma, jax.grad(lower_loss, argnums=1)(x, z))
            slope = jax.grad(lower_loss, argnums=1)(x, y)
            new_y = moved(y, alpha, plus(jax.grad(upper_loss, argnums=1)(x, y), slope, weight))
            return new_y, new_z

        y, z = repeat(inner_steps, inner, (state.y, state.z))
        at_y, at_z = (jax.grad(lower_loss)(x, lower) for lower in (y, z))
        through = plus(at_y, at_z, -1.0)
        direction = plus(jax.grad(upper_loss)(x, y), through, weight)
        increment = jnp.asarray(multiplier_increment, weight.dtype)
        return F2saState(moved(x, xi * alpha, direction), y, z, weight + increment, count + 1)

    return BilevelStepper(init, step)
