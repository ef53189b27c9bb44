"""HSPG: half-space projected gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    Fraction,
    Key,
    NonNegative,
    Signal,
    delay,
    flow,
    lift_tree,
    scheduled,
    step_count,
    transformation,
    where,
)
from ...transforms.notation import Step, draws, is_neutral
from ...transforms.notation.context import Context
from ...transforms.notation.crowds import of_stacks
from ...transforms.notation.mapping import one_each
from ...transforms.notation.roots import root
from ...transforms.notation.sharding import replicated
from ...transforms.notation.values import Leaves
from ...transforms.trees import random_key
from .structures import (
    Groups,
    Structures,
    dots,
    in_structures,
    of_sets,
    rows_of_matrices,
    spread,
)


@of_stacks
def _penalised_of(
    context: Context, g: Leaves, x: Leaves, penalty: float | jax.Array, groups: Groups
) -> Leaves:
    """g + penalty x / (|x| + 1e-6), with the norm of the structure."""
    structures = Structures(groups, x, context.label)

    def penalised(slopes: Any, leaves: Any) -> tuple[jax.Array, ...]:
        norms = root(dots(leaves, leaves))
        scale = jnp.where(norms > 0, penalty / (norms + 1e-6), 0)
        pairs = zip(slopes, leaves, strict=True)
        return tuple(slope + spread(scale, leaf) * leaf for slope, leaf in pairs)

    return structures.replaced(g, of_sets(penalised, structures.rows(g), structures.rows(x)))


_penalised = lift_tree(_penalised_of, "penalised", context=True, out=1)


@of_stacks
def _projected_of(
    context: Context,
    trial: Leaves,
    x: Leaves,
    active: jax.Array,
    epsilon: float | jax.Array,
    most: float | jax.Array,
    key: jax.Array,
    groups: Groups,
) -> Leaves:
    """The steps to the trial point, to zero where a structure leaves its half-space."""
    structures = Structures(groups, x, context.label)

    def projected(number: jax.Array, trials: Any, leaves: Any) -> tuple[jax.Array, ...]:
        squares = dots(leaves, leaves)
        zero = squares == 0
        leave = (dots(trials, leaves) < epsilon * squares) & ~zero
        leave &= _allowed(leave, zero, most, draws.fold_in(key, number))
        removed = active & (leave | zero)
        pairs = zip(trials, leaves, strict=True)
        return tuple(jnp.where(spread(removed, x) > 0, -x, y - x) for y, x in pairs)

    rows, trials = structures.rows(x), structures.rows(trial)
    numbers = one_each(jnp.arange(len(rows)), rows)
    steps = trial.map(jnp.subtract, x)
    return structures.replaced(steps, of_sets(projected, numbers, trials, rows))


def _allowed(
    leaves: jax.Array, zero: jax.Array, most: float | jax.Array, key: jax.Array
) -> bool | jax.Array:
    """Which structures may go: all, or some drawn at random where too many would."""
    if is_neutral(most, 1.0):
        return True
    leaves, zero = replicated(leaves), replicated(zero)
    drawn = jnp.where(leaves, draws.uniform(key, leaves.shape), 2.0)
    gone, new = jnp.sum(zero, dtype=drawn.dtype), jnp.sum(leaves, dtype=drawn.dtype)
    bound = leaves.size * jnp.asarray(most, drawn.dtype)
    first = jnp.argsort(jnp.argsort(drawn)).astype(drawn.dtype) < jnp.floor(gone + new - bound)
    return jnp.where(gone >= bound, False, (gone + new <= bound) | first)


_projected = lift_tree(_projected_of, "projected", context=True, out=1)


@method(
    "Chen et al. 2021, Only Train Once: A One-Shot Neural Network Training And Pruning Framework",
    arxiv="2107.07467",
    tags=("momentum", "sparse"),
    learning_rate=0.1,
    required={"groups": rows_of_matrices},
)
@transformation()
def hspg(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    penalty: NonNegative = 1e-3,
    momentum: Decay = 0.0,
    epsilon: Fraction = 0.0,
    projection_start: Step = 1000,
    max_group_sparsity: Fraction = 1.0,
    key: Key = 0,
) -> Flow:
    """Gradient descent with a penalty on the norms of structures, then projection of these to zero.

        psi = g + penalty x / (|x| + 1e-6)                      per structure
        t < projection_start:   z = momentum z + psi,   x <- x - lr z
        t >= projection_start:  y = momentum y + psi,   xhat = x - lr y
                                x <- 0 if <xhat, x> < epsilon |x|^2 else xhat

    The norm is that of a whole structure: a unit's weights, bias and normalisation. One that is
    zero in the second stage stays so. The second stage starts with a fresh buffer; leaves outside
    all structures have no penalty, and momentum in the second stage alone.

    Args:
      learning_rate: lr; number or schedule.
      groups: for every set of structures a mapping from leaf names, "layer/kernel", to the axis
        along which they lie; or a function of the params that returns such a list.
      penalty: of the norms.
      momentum: undamped; 0 keeps no buffer.
      epsilon: how far a step must leave the half-space, in [0, 1].
      projection_start: the first step of the second stage; 1 is the first of all.
      max_group_sparsity: share of the structures of a set that may be zero; as a step would pass
        it, only as many of those that it projects as lie beyond, drawn at random, go.
      key: seed or key of these draws.

    Returns:
      The optimizer; `update` needs `params`. Its state is the size of the params with momentum, and
      a counter.

    Raises:
      ValueError: for a hyper-parameter out of range, an unknown leaf, or axes of unequal length.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import hspg
      >>> opt = hspg(1.0, [{"w": 0}], penalty=0.5, projection_start=1)
      >>> params = {"w": jnp.array([[0.1, 0.1], [3.0, 4.0]])}
      >>> g = {"w": jnp.zeros((2, 2))}
      >>> u, _ = opt.update(g, opt.init(params), params)
      >>> (params["w"] + u["w"]).round(2).tolist()
      [[0.0, 0.0], [2.700000047683716, 3.5999999046325684]]

    References:
      Chen et al. 2021 (arXiv 2107.07467); microsoft/only_train_once, first release, for the 1e-6,
      the separate buffers and the limit.
    """

    def step(g: Signal, params: Signal) -> Signal:
        t = step_count()
        psi = _penalised(g, params, scheduled(penalty), groups=groups)
        if not is_neutral(momentum):
            past = delay(g, name="momentum")
            kept = where(t == projection_start, 0.0, scheduled(momentum))
            z = past << kept * past + psi
            psi = where(t >= projection_start, z, in_structures(z, psi, params, groups=groups))
        trial = params - scheduled(learning_rate) * psi
        return _projected(
            trial,
            params,
            t >= projection_start,
            scheduled(epsilon),
            scheduled(max_group_sparsity),
            random_key(key),
            groups=groups,
        )

    return flow(step)
