"""ProxSkip for variational inequalities, and the baseline FedGDA-GT."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.typing import ArrayLike

from ...registry import method
from ...transforms import (
    Flow,
    Key,
    Mask,
    Probability,
    Signal,
    Size,
    delay,
    divide_or_zero,
    flow,
    lift_tree,
    scheduled,
    transformation,
    where,
)
from ...transforms.closures.gradient_at import field_at
from ...transforms.notation.context import Context
from ...transforms.notation.known import repeat
from ...transforms.notation.values import Leaves
from ...transforms.workers import ascending, coin, mean_over, mean_when, operator_at


@method(
    "Zhang et al. 2024, Communication-Efficient Gradient Descent-Accent Methods for Distributed "
    "Variational Inequalities: Unified Analysis and Local Updates",
    arxiv="2306.05100",
    tags=("workers", "games", "noise"),
    learning_rate=0.05,
    required={"p": 0.5},
)
@transformation()
def proxskip_vip(
    learning_rate: optax.ScalarOrSchedule,
    p: Probability,
    ascent_mask: Mask | None = None,
    key: Key = 0,
    coin_fn: Callable[[jax.Array, jax.Array], ArrayLike] | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""Local steps with a correction for each worker, and an average now and then.

    Worker i with operator :math:`F_i` and correction :math:`h_i`, which starts at 0:

    .. math::
        \hat x_i = x_i - \gamma (F_i(x_i) - h_i)

    With probability 1 - p, :math:`x_i \leftarrow \hat x_i`; else, with one coin for all,

    .. math::
        x_i \leftarrow \frac 1 n \sum_j \Bigl( \hat x_j - \frac \gamma p h_j \Bigr), \qquad
        h_i \leftarrow h_i + \frac p \gamma (x_i - \hat x_i)

    The sum of all corrections stays 0. Each worker passes its own gradient at its own params, which
    differ between averages: inside `jax.shard_map` they vary along the axis, under `jax.vmap` they
    are stacked.

    Args:
      learning_rate: gamma; a number: a schedule breaks the invariants slightly.
      p: probability of an average; sqrt(gamma mu) in theory.
      ascent_mask: leaves on which there is ascent, whose gradient is negated: a tree of booleans,
        or a function of the params. With it, it is ProxSkip-GDA-FL.
      key: seed or key of the coins, the same on all workers.
      coin_fn: `(key, count) -> bool` in place of the draw; count is 0 at the first step.
      axis_name: the axis along which the workers lie; None: there is one.

    Returns:
      The optimizer; it needs `params`. Its state is one buffer of their size, each worker's own,
      and a key.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import proxskip_vip
      >>> opt, x = proxskip_vip(0.5, p=1.0, axis_name="workers"), 0.0
      >>> step = lambda g: opt.update(g, opt.init(x), x)[0]
      >>> jax.jit(jax.vmap(step, axis_name="workers"))(jnp.array([1.0, 3.0])).tolist()
      [-1.0, -1.0]

    References:
      Zhang et al. 2024 (arXiv 2306.05100), and isayantan/ProxSkipVIP, which agree. The variance-
      reduced operators are the caller's.
    """

    def step(g: Signal, params: Signal) -> Signal:
        gamma, probability = scheduled(learning_rate), scheduled(p)
        h = delay(params, 0.0, name="correction")
        there = params - gamma * (ascending(g, ascent_mask) - h)
        due = coin(key, p, coin_fn)
        share = p if isinstance(p, int | float) else 1.0
        shifted = there - divide_or_zero(gamma * h, probability)
        met = mean_when(due, shifted, axis_name, share=share)
        new = where(due, met, there)
        h << where(due, h + divide_or_zero(probability * (new - there), gamma), h)
        return new - params

    return flow(step)


@method(
    "Zhang et al. 2024, Communication-Efficient Gradient Descent-Accent Methods for Distributed "
    "Variational Inequalities: Unified Analysis and Local Updates",
    arxiv="2306.05100",
    tags=("workers", "games", "closure", "tracked-mean"),
    learning_rate=0.05,
    small_model={"num_local_steps": 2},
    required={"num_local_steps": 2},
)
@transformation()
def fedgda_gt(
    learning_rate: optax.ScalarOrSchedule, num_local_steps: Size, axis_name: str | None = None
) -> Flow:
    r"""One round of local steps, each corrected by the gap between own and mean operator.

    From common x, worker i of n:

    .. math::
        y_i \leftarrow y_i - \gamma \bigl( F_i(y_i) - F_i(x) + \bar F(x) \bigr) \quad (K \text{
        times}), \qquad x \leftarrow \frac 1 n \sum_i y_i

    Args:
      learning_rate: gamma; number, or schedule of the rounds.
      num_local_steps: K.
      axis_name: the axis along which the workers lie; None: there is one.

    Returns:
      The optimizer, whose update is a whole round: it needs `params` and `operator_fn` (params ->
      this worker's operator), and may be given None as gradient. No state but the count of
      schedules; it sends twice the params in a round.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for a missing input or an axis that
        is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import fedgda_gt
      >>> opt, z = fedgda_gt(0.5, 2), jnp.array([1.0, 0.0])
      >>> field = lambda z: jnp.array([z[1], -z[0]])         # of the game x y
      >>> opt.update(None, opt.init(z), z, operator_fn=field)[0].tolist()
      [-0.25, 1.0]

    References:
      Sun & Wei 2022, A Communication-efficient Algorithm with Linear Convergence for Federated
      Minimax Learning (arXiv 2206.01132), as in isayantan/ProxSkipVIP of Zhang et al. 2024.
    """

    def walked(
        context: Context, x: Leaves, fn: Any, here: Leaves, mean: Leaves, rate: float | jax.Array
    ) -> Leaves:
        def local(_: int | jax.Array, y: Leaves) -> Leaves:
            there = field_at(context, y, fn, "operator_fn")
            return y.map(
                lambda y, f, own, all_: (y - rate * (f - own + all_)).astype(y.dtype),
                there, here, mean,
            )  # fmt: skip

        return repeat(num_local_steps, local, x)

    walk = lift_tree(walked, "local_steps", context=True, out=0)

    def step(g: Signal, params: Signal, operator_fn: Signal) -> Signal:
        here = operator_at(params, operator_fn)
        mean = mean_over(here, axis_name)
        ends = walk(params, operator_fn, here, mean, scheduled(learning_rate))
        return mean_over(ends, axis_name) - params

    return flow(step)
