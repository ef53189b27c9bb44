"""BO-REP: bilevel descent with normalised momentum and rare steps at the lower level."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import Decay, Length, NonNegative, Period, Positive, Size, checked
from ...transforms.notation.known import choose, repeat
from ...transforms.notation.roots import relative_norm
from .stepper import (
    BilevelStepper,
    Loss,
    at_count,
    check_losses,
    hessian_product,
    mixed_product,
    moved,
    owned,
    plus,
    zeros,
)


class BoRepState(NamedTuple):
    """What `bo_rep` keeps.

    Attributes:
      x: the upper variable.
      y: the lower variable.
      z: about the solution of H z = grad_y f.
      mu: the momentum of the upper variable.
      count: steps made.
    """

    x: Any
    y: Any
    z: Any
    mu: Any
    count: Any


@method(
    "Hao, Gong & Liu 2024, Bilevel Optimization under Unbounded Smoothness: A New Algorithm and "
    "Convergence Analysis",
    arxiv="2401.09587",
    tags=("bilevel", "curvature", "momentum"),
    kind="stepper",
    required={"learning_rate": 0.05},
)
@checked()
def bo_rep(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    linear_rate: Positive = 0.1,
    lower_rate: Positive = 0.1,
    update_interval: Period = 2,
    lower_steps: Size = 3,
    refine_steps: Length = 10,
    eps: NonNegative = 1e-10,
) -> BilevelStepper:
    r"""Bilevel descent for upper losses whose smoothness has no bound.

    With f the upper and g the lower loss, from the second step on before each
    `update_interval`-th step `lower_steps` steps :math:`y \leftarrow y - \beta \nabla_y g(x, y)`;
    then

    .. math::
        z_k &= z_{k-1} - \kappa (\nabla_{yy}^2 g\, z_{k-1} - \nabla_y f) \\
        m_k &= \beta_1 m_{k-1} + (1 - \beta_1) (\nabla_x f - \nabla_{xy}^2 g\, z_k) \\
        x_{k+1} &= x_k - \eta \frac{m_k}{\|m_k\| + \epsilon}

    all at (x, y), with the norm over all leaves, z and m from 0 and no bias correction. `init`
    makes `refine_steps` steps at the lower level first.

    Args:
      learning_rate: eta, the length of every step; number or schedule.
      b1: of the momentum.
      linear_rate: kappa, below 2 / (smoothness of g). Above, z grows without end, and what comes of
        it is not finite at last: losses of 1e9 want rates of 1e-9.
      lower_rate: beta; as kappa, for y.
      update_interval: steps from one move of the lower variable to the next.
      lower_steps: its steps at a move.
      refine_steps: those in `init`.
      eps: added to the norm.

    Returns:
      A `BilevelStepper`: `init(upper, lower, upper_loss, lower_loss)`,
      `step(state, upper_loss, lower_loss)`, with x, y and z in the state.

    Raises:
      ValueError: for a hyper-parameter out of range, or losses that return no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import bo_rep
      >>> f = lambda x, y: jnp.sum((y - 1.0) ** 2) / 2
      >>> g = lambda x, y: jnp.sum((y - x) ** 2) / 2
      >>> stepper = bo_rep(0.25)
      >>> state = stepper.init(jnp.array([0.0]), jnp.array([0.0]), f, g)
      >>> stepper.step(state, f, g).x.tolist()
      [0.25]

    References:
      Hao, Gong & Liu 2024, Bilevel Optimization under Unbounded Smoothness (arXiv 2401.09587), and
      the authors' code, whose hyper-gradient has the new z, as ours. It starts z at random and
      leaves out grad_x f; ours does neither.
    """

    def down(
        times: int, x: optax.Params, y: optax.Params, lower_loss: Loss, rate: float | jax.Array
    ) -> optax.Params:
        slope = jax.grad(lower_loss, argnums=1)
        return repeat(times, lambda _, y: moved(y, rate, slope(x, y)), y)

    def init(
        upper: optax.Params, lower: optax.Params, upper_loss: Loss, lower_loss: Loss
    ) -> BoRepState:
        check_losses("bo_rep", upper, lower, upper_loss=upper_loss, lower_loss=lower_loss)
        y = down(refine_steps, upper, owned(lower), lower_loss, at_count(lower_rate, 0))
        return BoRepState(owned(upper), y, zeros(lower), zeros(upper), jnp.zeros((), jnp.int32))

    def step(state: BoRepState, upper_loss: Loss, lower_loss: Loss) -> BoRepState:
        x, count = state.x, state.count
        check_losses("bo_rep", x, state.y, upper_loss=upper_loss, lower_loss=lower_loss)
        eta, decay, kappa, beta, small = (
            at_count(v, count) for v in (learning_rate, b1, linear_rate, lower_rate, eps)
        )
        due = (count > 0) & (count % update_interval == 0)
        y = choose(due, lambda y: down(lower_steps, x, y, lower_loss, beta), lambda y: y, state.y)
        direct, slope = jax.grad(upper_loss, argnums=(0, 1))(x, y)
        residual = plus(hessian_product(lower_loss, x, y, state.z), slope, -1.0)
        z = moved(state.z, kappa, residual)
        h = plus(direct, mixed_product(lower_loss, x, y, z), -1.0)
        mu = jax.tree.map(lambda m, new: _averaged(m, new, decay), state.mu, h)
        size, length = relative_norm(jax.tree.leaves(mu))
        unit = jax.tree.map(lambda m: m / size / (length + small / size), mu)
        return BoRepState(moved(x, eta, unit), y, z, mu, count + 1)

    return BilevelStepper(init, step)


def _averaged(old: jax.Array, new: jax.Array, decay: float | jax.Array) -> jax.Array:
    d = jnp.asarray(decay, old.dtype)
    return d * old + (1 - d) * new.astype(old.dtype)
