"""Step sizes whose last iterate, not their average, comes with a guarantee."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ..registry import schedule
from ..transforms.notation.checks import refusal
from .arguments import check, check_choice, check_steps
from .steps import Numeric, elapsed, reached, remaining

NEEDS_TOTAL_STEPS = ("constant", "linear", "strong_known")


def _short_last_iterate_schedule(peak_value: float, total_steps: int) -> optax.Schedule:
    return last_iterate_schedule(
        "linear", eta=peak_value * math.sqrt(total_steps), total_steps=total_steps
    )


@schedule(
    "Liu & Zhou 2024, Revisiting the Last-Iterate Convergence of Stochastic Gradient Methods",
    arxiv="2312.08531",
    build=_short_last_iterate_schedule,
)
def last_iterate_schedule(
    kind: str,
    eta: Numeric = 1.0,
    total_steps: int | None = None,
    smoothness: Numeric | None = None,
    mu: Numeric | None = None,
) -> optax.Schedule:
    r"""The step sizes of the last-iterate theorems, convex and strongly convex.

    With t = c + 1, T = `total_steps`, L = `smoothness`, kappa = L / mu and tau = ceil(T / 2),

    | `kind`         | rate                                                                   |
    |----------------|------------------------------------------------------------------------|
    | "sqrt"         | min(1 / (2 L), eta / sqrt(t))                                          |
    | "constant"     | min(1 / (2 L), eta / sqrt(T))                                          |
    | "linear"       | min(1 / (2 L), eta (T - t + 1) / T^(3/2))                              |
    | "strong"       | 1 / (mu (t + 2 kappa))                                                 |
    | "strong2"      | 2 / (mu (t + 1 + 4 kappa))                                             |
    | "strong_known" | 1 / (mu (1 + 2 kappa)) up to tau, then 2 / (mu (t - tau + 2 + 4 kappa)) |

    "linear" removes the logarithm from the rate of the convex case. Its last step still moves;
    after it the rate is 0.

    Args:
      kind: one of the table.
      eta: distance over gradient, at best D / sqrt(G^2 + sigma^2); convex kinds only.
      total_steps: steps of the run, for "constant", "linear" and "strong_known".
      smoothness: Lipschitz constant L of the gradient; None stands for 0, without a cap.
      mu: constant of strong convexity, for the strong kinds.

    Returns:
      A schedule `step -> value`.

    Raises:
      ValueError: for an unknown kind, one that lacks what it needs, or values out of range.

    Example:
      >>> schedule = last_iterate_schedule("linear", eta=2.0, total_steps=4)
      >>> [round(float(schedule(c)), 3) for c in range(5)]
      [1.0, 0.75, 0.5, 0.25, 0.0]

    References:
      Liu & Zhou 2024, https://arxiv.org/abs/2312.08531. There is no published code.
    """
    check_choice("kind", kind, (*CONVEX, *STRONGLY_CONVEX))
    check("eta", eta, open_low=True)
    lipschitz = 0.0 if smoothness is None else smoothness
    check("smoothness", lipschitz)
    total = check_steps("total_steps", total_steps, 1) if kind in NEEDS_TOTAL_STEPS else 0
    if kind in CONVEX:
        return lambda count: jnp.minimum(eta * CONVEX[kind](count, total), _cap(lipschitz))
    if mu is None:
        raise refusal(f"mu must be given for kind={kind!r}, in (0, inf), got None")
    check("mu", mu, open_low=True)
    return lambda count: STRONGLY_CONVEX[kind](count, total, lipschitz / mu) / mu


def _cap(smoothness: Numeric) -> jax.Array:
    """`1 / (2 L)`, infinite for L = 0."""
    smooth = jnp.asarray(smoothness) > 0
    return jnp.where(smooth, 1 / (2 * jnp.where(smooth, smoothness, 1.0)), jnp.inf)


def _sqrt(count: Numeric, total: int) -> jax.Array:
    return 1 / jnp.sqrt(elapsed(count, -1))


def _constant(count: Numeric, total: int) -> jax.Array:
    return elapsed(count, 0, 0) + 1 / math.sqrt(total)


def _linear(count: Numeric, total: int) -> jax.Array:
    return remaining(count, 0, total) / (total * math.sqrt(total))


def _strong(count: Numeric, total: int, condition: Numeric) -> jax.Array:
    return 1 / (elapsed(count, -1) + 2 * condition)


def _strong2(count: Numeric, total: int, condition: Numeric) -> jax.Array:
    return 2 / (elapsed(count, -1) + 1 + 4 * condition)


def _strong_known(count: Numeric, total: int, condition: Numeric) -> jax.Array:
    half = (total + 1) // 2
    late = 2 / (elapsed(count, half - 1) + 2 + 4 * condition)
    return jnp.where(reached(count, half), late, 1 / (1 + 2 * condition))


CONVEX: dict[str, Callable[[Numeric, int], jax.Array]] = {
    "sqrt": _sqrt,
    "constant": _constant,
    "linear": _linear,
}
STRONGLY_CONVEX: dict[str, Callable[[Numeric, int, Numeric], jax.Array]] = {
    "strong": _strong,
    "strong2": _strong2,
    "strong_known": _strong_known,
}
