"""MoNNA: workers with params of their own, which mix with their nearest neighbours."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    FlowError,
    Length,
    NonNegative,
    Positive,
    Signal,
    divide_or_zero,
    ema,
    flow,
    minimum,
    norm_factors,
    scheduled,
    transformation,
)
from ...transforms.notation.context import Context
from ...transforms.notation.crowds import of_stacks, of_units, units_of
from ...transforms.notation.values import Leaves, is_missing
from ...transforms.objectives import bare_array
from ...transforms.workers import axis, exchanged, of_worker
from .rows import Rows, require_workers


@method(
    "Farhadkhani et al. 2023, Robust Collaborative Learning with Linear Gradient Overhead",
    arxiv="2209.10931",
    tags=("robust", "momentum"),
    learning_rate=0.05,
    small_model={"momentum": 0.9},
    required={"num_byzantine": 0},
)
@transformation()
def mo_nna(
    learning_rate: optax.ScalarOrSchedule,
    num_byzantine: Length,
    momentum: Decay = 0.99,
    weight_decay: NonNegative = 0.0,
    gradient_clip: Positive | None = None,
    axis_name: str | None = None,
    mu_dtype: DType | None = None,
) -> Flow:
    r"""Each worker steps by its own momentum and goes to the mean of its nearest neighbours.

    Worker i, with gradient :math:`g_i` at its own params, receives the half steps of those that
    answer, :math:`n_i` with its own, of which f may be anything:

    .. math::
        m_i &\leftarrow \beta m_i + (1 - \beta) g_i \\
        h_i &= \theta_i - \eta (m_i + \lambda \theta_i) \\
        \theta_i &\leftarrow \frac 1 {n_i - f} \sum_{j \in N_i} h_j

    with N_i the :math:`n_i - f` nearest of them over all leaves, its own among them. With f = 0 it
    is the mean of all that answer.

    A worker's params end no farther from its own half step than the most distant honest one that
    it hears of, while at most f that answer are at fault. Params that are not finite are left out.

    It runs inside `jax.shard_map` over a mesh with the axis, along which the params differ, or
    under `jax.vmap` with a name for it.

    Args:
      learning_rate: eta; number or schedule.
      num_byzantine: f; at least 2 f + 1 workers are needed, those outside the axis included.
      momentum: beta, in [0, 1).
      mu_dtype: storage of the momentum; default at least float32.
      weight_decay: lambda.
      gradient_clip: largest norm of a gradient over all leaves; None does not clip.
      axis_name: the axis along which the workers lie; None: there is one.

    Returns:
      The optimizer; its state is one buffer of the params' size, each worker's own. Extra arguments
      of its update: `neighbors`, booleans, one for each worker of the axis: whose answers this
      one has; and `received`, params stacked on a leading axis, of workers outside the axis.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there, or
        too few workers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import mo_nna
      >>> opt, x = mo_nna(1.0, 1, momentum=0.0, axis_name="workers"), jnp.zeros(1)
      >>> step = lambda g: opt.update(g, opt.init(x), x)[0]
      >>> jax.vmap(step, axis_name="workers")(jnp.array([[1.0], [2.0], [99.0]])).tolist()
      [[-1.5], [-1.5], [-50.5]]

    References:
      Farhadkhani, Guerraoui, Gupta, Hoang, Pinot & Stephan 2023 (arXiv 2209.10931), as in
      LPD-EPFL/robust-collaborative-learning.
    """
    mixed = _mixing(num_byzantine, axis_name)

    def step(
        g: Signal,
        params: Signal,
        neighbors: Signal | None = None,
        received: Signal | None = None,
    ) -> Signal:
        own = of_worker(g, axis_name)
        if gradient_clip is not None:
            size, relative = norm_factors(own)
            allowed = divide_or_zero(scheduled(gradient_clip), relative)
            own = own * (1 / size) * minimum(size, allowed)
        m = own >> ema(momentum, dtype=mu_dtype, name="mu")
        moved = -scheduled(learning_rate) * (m + weight_decay * params)
        return moved + mixed(params + moved, bare_array(neighbors), received)

    return flow(step)


def _mixing(num_byzantine: int, axis_name: str | None) -> Any:
    """From a worker's half step to the mean of its neighbours, as a signal."""

    @of_stacks
    def nearest(context: Context, half: Leaves, neighbors: Any, received: Any) -> Leaves:
        if received is not None:
            half = Leaves(half.values, half.treedef)
        own = units_of(half)
        everyone = axis.gather(own, axis_name)
        others = _outside(context, half, received)
        stacked = [jnp.concatenate(parts) for parts in zip(everyone, *others, strict=True)]
        workers = axis.count_workers(axis_name)
        total = workers + (len(others[0][0]) if others and own else 0)
        require_workers(context.label, num_byzantine, total, 2, 1)
        apart = [x - y[None] for x, y in zip(stacked, own, strict=True)]
        there = _answering(context, neighbors, workers, total, axis_name)
        mean = _mean_of_nearest(Rows.of(context.label, apart), there, num_byzantine)
        return of_units((x.astype(y.dtype) for x, y in zip(mean, own, strict=True)), half)

    def sent(context: Context, half: Any, *_: object) -> float:
        return float(axis.size_of(half))

    return exchanged(nearest, "nearest_neighbors", axis_name, sent, 2 * num_byzantine + 1)


def _mean_of_nearest(apart: Rows, there: jax.Array, num_byzantine: int) -> list[jax.Array]:
    origin = [jnp.zeros_like(x[0]) for x in apart.leaves]
    distances = jnp.where(there, apart.distances_to(origin), jnp.inf)
    place = jnp.argsort(jnp.argsort(distances, stable=True), stable=True)
    count = jnp.maximum(jnp.sum(there) - num_byzantine, 1)
    chosen = (place < count) & jnp.isfinite(distances)
    number = jnp.maximum(jnp.sum(chosen), 1).astype(distances.dtype)
    return apart.weighted(jnp.where(chosen, 1 / number, 0))


def _outside(context: Context, half: Leaves, received: Any) -> list[list[jax.Array]]:
    """The params of workers outside the axis, if there are any."""
    if received is None:
        return []
    if not isinstance(received, Leaves):
        raise FlowError(f"{context.label}: received must be a tree like the params, stacked")
    rows = [x for x, y in zip(received.values, half.values, strict=True) if not is_missing(y)]
    shapes = [(jnp.shape(x)[1:], y.shape) for x, y in zip(rows, half.present(), strict=True)]
    counts = {jnp.shape(x)[0] if jnp.ndim(x) else 0 for x in rows}
    if any(given != wanted for given, wanted in shapes) or len(counts) > 1 or 0 in counts:
        raise FlowError(
            f"{context.label}: received must have one more axis in front than the params, as long "
            f"on every leaf; its leaves have shapes {[jnp.shape(x) for x in rows]}"
        )
    return [[jnp.asarray(x, y.dtype) for x, y in zip(rows, half.present(), strict=True)]]


def _answering(
    context: Context, neighbors: jax.Array | None, workers: int, total: int, axis_name: str | None
) -> jax.Array:
    """Who answers: those that are said to, who is asked itself, and all outside the axis."""
    if neighbors is None:
        return jnp.ones(total, bool)
    if jnp.shape(neighbors) != (workers,):
        raise FlowError(
            f"{context.label}: neighbors must be {workers} booleans, one for each worker, it has "
            f"the shape {jnp.shape(neighbors)}"
        )
    itself = jnp.arange(workers) == axis.worker_index(axis_name)
    outside = jnp.ones(total - workers, bool)
    return jnp.concatenate([jnp.asarray(neighbors, bool) | itself, outside])
