"""Shapes of a decay, from 1 at its start to 0 at its end, and the cooldown that uses them."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from ..registry import schedule
from ..transforms.notation.checks import refusal
from .arguments import check, check_choice, check_steps
from .steps import Numeric, between, elapsed, fractions, reached

DecayShape: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]


def linear(done: jax.Array, left: jax.Array) -> jax.Array:
    """`1 - u`, with u the fraction done."""
    return left


def cosine(done: jax.Array, left: jax.Array) -> jax.Array:
    """`(1 + cos(pi u)) / 2`, as the square of a sine, which is exact at both ends."""
    return jnp.sin(jnp.pi / 2 * left) ** 2


def mirror_cosine(done: jax.Array, left: jax.Array) -> jax.Array:
    """The cosine mirrored about the line: steep at both ends, flat in the middle."""
    return 2 * linear(done, left) - cosine(done, left)


def square(done: jax.Array, left: jax.Array) -> jax.Array:
    """`1 - u^2`."""
    return left * (1 + done)


def one_minus_sqrt(done: jax.Array, left: jax.Array) -> jax.Array:
    """`1 - sqrt(u)`."""
    # the root has no derivative at zero, which would make that of the whole schedule NaN
    root = jnp.where(done > 0, jnp.sqrt(jnp.where(done > 0, done, 1)), 0)
    return left / (1 + root)


def rational(beta: Numeric) -> DecayShape:
    """`(1 - u) / ((1 - beta) + beta (1 - u))`, the shape of REX."""

    def shape(done: jax.Array, left: jax.Array) -> jax.Array:
        return left / ((1 - beta) + beta * left)

    return shape


DECAY_SHAPES: dict[str, DecayShape] = {
    "linear": linear,
    "cosine": cosine,
    "mirror_cosine": mirror_cosine,
    "square": square,
    "1-sqrt": one_minus_sqrt,
}
GEOMETRIC_SHAPES = ("exponential", "half_life")


def _short_cooldown(peak_value: float, total_steps: int) -> optax.Schedule:
    return cooldown(peak_value, total_steps // 2, total_steps - total_steps // 2)


@schedule(
    "Hägele et al. 2024, Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
    arxiv="2405.18392",
    build=_short_cooldown,
)
def cooldown(
    init_value: Numeric,
    from_step: int,
    decay_steps: int,
    end_value: Numeric = 0.0,
    decay_shape: str | DecayShape = "linear",
    half_life: Numeric | None = None,
) -> optax.Schedule:
    r"""Holds a rate and lets it decay from a chosen step on: a branch off any checkpoint.

    With :math:`u = (c - S)/D` for `from_step` S and `decay_steps` D, held to [0, 1],

    .. math::
        v(c) = v_{end} + (v_{init} - v_{end})\, q(u)

    | `decay_shape`   | q(u)                                          |
    |-----------------|-----------------------------------------------|
    | "linear"        | 1 - u                                         |
    | "cosine"        | (1 + cos(pi u)) / 2                           |
    | "mirror_cosine" | 2 (1 - u) - (1 + cos(pi u)) / 2               |
    | "square"        | 1 - u^2                                       |
    | "1-sqrt"        | 1 - sqrt(u)                                   |
    | "exponential"   | v = init^(1-u) end^u, needs end > 0           |
    | "half_life"     | v = max(init 2^(-(c-S)/half_life), end), goes on after S + D |

    Args:
      init_value: rate up to `from_step`.
      from_step: first step of the decay (its value is still `init_value`).
      decay_steps: length of the decay in steps; 0 drops to `end_value` at once.
      end_value: rate from `from_step + decay_steps` on.
      decay_shape: a name of the table, or a function of the fractions done and left, both in
        [0, 1], that falls from 1 to 0. Both are given since `1 - done` loses digits.
      half_life: steps in which the "half_life" shape halves the rate.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for values out of range, or "exponential" with an end of zero.

    Example:
      >>> schedule = cooldown(1.0, from_step=10, decay_steps=4, decay_shape="1-sqrt")
      >>> [round(float(schedule(c)), 3) for c in (0, 10, 11, 12, 14)]
      [1.0, 1.0, 0.5, 0.293, 0.0]

    References:
      Hägele et al. 2024, https://arxiv.org/abs/2405.18392 (repository epfml/schedules-and-scaling);
      the half-life form is that of Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395.
    """
    check("init_value", init_value)
    check("end_value", end_value)
    from_step = check_steps("from_step", from_step)
    decay_steps = check_steps("decay_steps", decay_steps)
    if (half_life is not None) != (decay_shape == "half_life"):
        raise refusal(
            f"half_life goes with decay_shape='half_life' and only with it, "
            f"got half_life={half_life} and decay_shape={decay_shape!r}"
        )
    if half_life is not None:
        return _half_life(init_value, from_step, end_value, half_life)
    if decay_shape == "exponential":
        return _exponential(init_value, from_step, decay_steps, end_value)
    return _shaped(init_value, from_step, decay_steps, end_value, decay_shape)


def _shaped(
    init_value: Numeric,
    start: int,
    length: int,
    end_value: Numeric,
    decay_shape: str | DecayShape,
) -> optax.Schedule:
    if callable(decay_shape):
        shape = decay_shape
    else:
        check_choice("decay_shape", decay_shape, [*DECAY_SHAPES, *GEOMETRIC_SHAPES])
        shape = DECAY_SHAPES[decay_shape]

    def value(count: Numeric) -> jax.Array:
        return between(init_value, end_value, shape(*fractions(count, start, length)))

    return value


def _exponential(
    init_value: Numeric, start: int, length: int, end_value: Numeric
) -> optax.Schedule:
    check("end_value of the exponential shape", end_value, open_low=True)

    def value(count: Numeric) -> jax.Array:
        done, left = fractions(count, start, length)
        return jnp.asarray(init_value) ** left * jnp.asarray(end_value) ** done

    return value


def _half_life(
    init_value: Numeric, start: int, end_value: Numeric, half_life: Numeric
) -> optax.Schedule:
    check("half_life", half_life, open_low=True)

    def value(count: Numeric) -> jax.Array:
        halvings = elapsed(count, start) / half_life
        decayed = jnp.maximum(init_value * 0.5**halvings, end_value)
        # an end above the rate, too, waits for the decay
        return jnp.where(reached(count, start), decayed, init_value)

    return value
