"""Nash-MTL: the gradients bargain for their common direction."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    NonNegative,
    Period,
    Signal,
    Size,
    delay,
    flow,
    lift,
    scheduled,
    step_count,
    transformation,
)
from ...transforms.notation import linalg
from ...transforms.notation.known import choose, repeat_while
from ...transforms.notation.roots import power_of_two_below, root
from ...transforms.objectives import gramian, largest_entries, weigh

SOLVED = 1e-3
HALVINGS = 16


@method(
    "Navon et al. 2022, Multi-Task Learning as a Bargaining Game",
    arxiv="2202.01017",
    tags=("several-losses",),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def nash_mtl(
    max_norm: NonNegative = 1.0,
    update_interval: Period = 1,
    max_iters: Size = 30,
    max_objectives: Size = 32,
) -> Flow:
    r"""Weighs stacked gradients by the Nash bargaining solution for a common direction.

    .. math::
        G a = 1 / a, \quad a > 0, \qquad
        g = \min\Bigl(1, \frac{c}{\|\sum_i a_i g_i\|}\Bigr) \sum_i a_i g_i

    with the Gramian :math:`G_{ij} = \langle g_i, g_j \rangle` over the whole tree. The equation is
    the minimum of :math:`a^\top G a / 2 - \sum_i \log a_i`, found by Newton's method. At it the
    combination has length sqrt(m), so that c below that always clips. It stands in front of any
    optimizer.

    One objective: its gradient at length 1, at most c. With a row of zeros, or gradients in
    opposite directions, there is no solution: the last weights are used, which are 1 at first.

    Args:
      max_norm: c; 0 does not clip.
      update_interval: steps between two solutions; in between the last weights are used.
      max_iters: most steps of Newton's method.
      max_objectives: how many weights the state has room for.

    Returns:
      A transformation from stacked gradients to ordinary ones; its state holds the last weights and
      a counter.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for gradients that are not stacked,
        or over more than `max_objectives`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import nash_mtl
      >>> aggregate = nash_mtl(max_norm=0.0)
      >>> stacked = jnp.array([[1.0, 0.0], [0.0, 4.0]])
      >>> print(aggregate.update(stacked, aggregate.init(jnp.zeros(2)))[0].round(3))
      [1. 1.]

    References:
      Navon et al. 2022, Multi-Task Learning as a Bargaining Game (arXiv 2202.01017). The authors'
      code approximates the solution by at most 20 convex programs, to a residual of 1e-3; here it
      is solved.
    """
    solve = lift(_weights, "bargain")

    def step(g: Signal) -> Signal:
        sizes = largest_entries(g)
        gram = gramian(g, sizes)
        last = delay(lambda: jnp.ones(max_objectives), name="weights")
        due = (step_count() - 1) % update_interval == 0
        a = last << solve(gram, sizes, last, due, max_iters=max_iters)
        return weigh(g, lift(_clipped, "clip")(a, gram, sizes, scheduled(max_norm)), sizes)

    return flow(step)


def _weights(
    G: jax.Array, sizes: jax.Array, last: jax.Array, due: jax.Array, max_iters: int
) -> jax.Array:
    """The weights in the units of the gradients themselves, with ones behind them."""
    m = len(G)
    if m > len(last):
        raise FlowError(f"nash_mtl: max_objectives={len(last)}, but there are {m} objectives")

    def bargained() -> jax.Array:
        a, solved = bargain(G, max_iters)
        return jnp.where(solved, a / sizes, last[:m]).astype(last.dtype)

    return last.at[:m].set(choose(due, bargained, lambda: last[:m]))


def _clipped(
    a: jax.Array, G: jax.Array, sizes: jax.Array, max_norm: float | jax.Array
) -> jax.Array:
    """The weights of the gradients over their sizes."""
    w = a[: len(G)].astype(G.dtype) * sizes
    largest = power_of_two_below(jnp.max(w))
    w_share = w / largest
    products = jnp.matmul(G, w_share, precision="highest")
    share = root(jnp.maximum(jnp.sum(w_share * products), 0))
    clips = (max_norm > 0) & (share > max_norm / largest)
    return jnp.where(clips, w_share * (max_norm / jnp.where(clips, share, 1)), w)


class _Search(NamedTuple):
    z: jax.Array
    residual: jax.Array
    iteration: int | jax.Array


def bargain(G: jax.Array, max_iters: int) -> tuple[jax.Array, jax.Array]:
    """The positive a with G a = 1 / a, and whether it was found.

    Damped Newton on a^T G a / 2 - sum log a, in units in which all gradients have length 1.
    """
    lengths = root(jnp.diagonal(G))
    has_length = jnp.all(lengths > 0)
    units = jnp.where(lengths > 0, lengths, 1)
    alone = jnp.where(lengths > 0, 0, 1).astype(G.dtype)  # of no length: numbers, though no bargain
    C = G / (units[:, None] * units[None, :]) + jnp.diag(alone)
    rounding = 4 * len(G) * jnp.finfo(G.dtype).eps
    rates = jnp.concatenate([jnp.ones(1, G.dtype), 0.5 ** jnp.arange(1, HALVINGS, dtype=G.dtype)])

    def residual_of(z: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(z * jnp.matmul(C, z, precision="highest") - 1))

    def objective(z: jax.Array) -> jax.Array:
        value = jnp.sum(z * jnp.matmul(C, z, precision="highest")) / 2
        return value - jnp.sum(jnp.log(z))

    def step(search: _Search) -> _Search:
        z = search.z
        slope = jnp.matmul(C, z, precision="highest") - 1 / z
        # opposite gradients have no bargain: z grows until rounding alone would keep this regular
        metric = C + jnp.diag(1 / z**2 + rounding)
        newton = -linalg.cho_solve(linalg.cholesky(metric), slope)
        # Within its own metric the step of length 1 / (1 + decrement) never leaves the domain.
        decrement = root(jnp.maximum(-jnp.sum(slope * newton), 0))
        steps = jnp.append(rates, 1 / (1 + decrement))
        points = z[None, :] + steps[:, None] * newton[None, :]
        inside = jnp.all(points > 0, axis=1)
        safe = jnp.where(inside[:, None], points, 1)
        values = jnp.where(inside, jax.vmap(objective)(safe), jnp.inf)
        # Near the solution the objective is flat to rounding, and the full step is the best.
        best = jnp.where((decrement < 0.25) & inside[0], 0, jnp.argmin(values))
        z = points[best]
        return _Search(z, residual_of(z), search.iteration + 1)

    def goes_on(search: _Search) -> jax.Array:
        unsolved = search.residual > 4 * jnp.finfo(G.dtype).eps
        return unsolved & (search.iteration < max_iters)

    z = 1 / jnp.sqrt(jnp.sum(jnp.abs(C), axis=1))
    found = repeat_while(goes_on, step, _Search(z, residual_of(z), 0))
    return found.z / units, has_length & (found.residual < SOLVED)
