"""HESSO: structures that fade out of a model while it trains."""

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    FlowError,
    Fraction,
    Mask,
    NonNegative,
    Signal,
    Size,
    decay_weights,
    delay,
    flow,
    handed_on,
    lift_tree,
    named,
    scheduled,
    step_count,
    trace,
    transformation,
    where,
)
from ...transforms.notation import Count, is_neutral
from ...transforms.notation.context import Context
from ...transforms.notation.ordering import are_first, are_largest
from ...transforms.notation.values import Leaves, promoting
from ...transforms.trees.vector import one_leaf
from .fading import kept_apart, scaled_steps, target_of
from .scores import CRITERIA, Criteria, checked_criteria, scores_of_structures
from .structures import Groups, Structures, TargetSparsity, rows_of_matrices


def heavy_ball(momentum: Decay, dampening: Fraction) -> Flow:
    """The momentum of the direction; none for a momentum of 0."""
    if is_neutral(momentum):
        return flow(lambda g: g)
    return named("momentum", trace(momentum, dampening=dampening))


def _picked_of(
    context: Context,
    x: Leaves,
    scores: Leaves,
    gone: Leaves,
    period: jax.Array,
    groups: Groups,
    target_sparsity: float,
    periods: int,
    divisible: int,
) -> Leaves:
    """The structures that become redundant in this period."""
    structures = Structures(groups, x, context.label)
    number = target_of(structures, target_sparsity)
    each = number // periods
    count = jnp.where(period == periods - 1, number - each * (periods - 1), each)
    pruned = gone.values[0]
    lowest = are_largest(-scores.values[0], jnp.sum(pruned) + count) & ~pruned
    first = are_first(lowest, count)
    return one_leaf(kept_apart(structures, first, pruned, divisible))


_picked = lift_tree(promoting(_picked_of), "picked", context=True, out=2)


def prune_structures(
    u: Signal,
    d: Signal,
    params: Signal,
    *,
    groups: Groups,
    target_sparsity: float,
    pruning_steps: int,
    start_pruning_step: Count,
    pruning_periods: int,
    group_divisible: int,
    criteria: Criteria,
) -> Signal:
    """The steps of params that move by u, in direction d, while structures fade out."""
    length = pruning_steps // pruning_periods
    if length < 2:
        raise FlowError(
            f"pruning_steps={pruning_steps} must be at least 2 for each of "
            f"pruning_periods={pruning_periods}"
        )
    since = step_count() - start_pruning_step
    k, period = since % length, (since - 1) // length
    begins = ((since - 1) % length == 0) & (since >= 1) & (period < pruning_periods)
    scores = scores_of_structures(params, d, groups=groups, criteria=criteria)
    redundant = delay(scores != scores, name="redundant", dtype=jnp.int8)
    pruned = delay(scores != scores, name="pruned", dtype=jnp.int8)
    gone = where(begins, pruned | redundant, pruned)
    picked = _picked(
        params,
        scores,
        gone,
        period,
        groups=groups,
        target_sparsity=target_sparsity,
        periods=pruning_periods,
        divisible=group_divisible,
    )
    fading = where(begins, picked, redundant)
    fade = (length - k - 1.0) / (length - k)
    factor = where(gone, 0.0, where(fading, fade, 1.0))
    ends = (since >= 0) & (k == length - 1)
    pruned << where(ends, gone | fading, gone)
    redundant << (fading & ~ends)
    return scaled_steps(u, params, factor, groups=groups)


@transformation()
def structured_pruning(
    inner: optax.GradientTransformation,
    groups: Groups,
    target_sparsity: TargetSparsity = 0.5,
    *,
    pruning_steps: Size,
    start_pruning_step: Count = 0,
    pruning_periods: Size = 1,
    group_divisible: Size = 1,
    criteria: Criteria | None = None,
) -> Flow:
    """Structures fade out of the params of an optimizer; the rule is that of `hesso`.

    Args:
      inner: a whole optimizer, learning rate included; its direction is that of its update.
      groups, target_sparsity, pruning_steps, start_pruning_step, pruning_periods, group_divisible,
        criteria: see `hesso`.

    Raises:
      ValueError: as `hesso`.
    """
    weights = checked_criteria(criteria, CRITERIA, "structured_pruning")

    def step(g: Signal, params: Signal) -> Signal:
        u = g >> inner
        return handed_on(prune_structures, u=u, d=-u, params=params, criteria=weights)

    return flow(step)


@method(
    "Chen et al. 2024, HESSO: Towards Automatic Efficient and User Friendly Any Neural Network "
    "Training and Pruning",
    arxiv="2409.09085",
    tags=("momentum", "sparse"),
    learning_rate=0.1,
    required={"groups": rows_of_matrices, "pruning_steps": 4},
)
@transformation()
def hesso(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    target_sparsity: TargetSparsity = 0.5,
    *,
    pruning_steps: Size,
    start_pruning_step: Count = 0,
    pruning_periods: Size = 1,
    group_divisible: Size = 1,
    criteria: Criteria | None = None,
    momentum: Decay = 0.0,
    dampening: Fraction = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
) -> Flow:
    """Gradient descent in which the least important structures fade to zero, for ever.

        d = g + weight_decay x,   momentum d + (1 - dampening) (g + weight_decay x) with momentum
        x <- x - lr d;   of redundant structures times (D - k - 1) / (D - k), of pruned ones 0

    At the start of each of `pruning_periods` periods of D steps a share of the structures becomes
    redundant, those that matter least by a sum of criteria, each relative to its norm over all
    structures: with x and d of a structure of n entries

        magnitude             |x|
        avg_magnitude         |x| / n
        cosine_similarity     <x, d> / (|x| |d|) + 1
        taylor_first_order    |<x, d>|
        taylor_second_order   <x, d>^2 / 2

    At k = D - 1 they are zero, and stay so. One structure of each set always remains.

    Args:
      learning_rate: lr; number or schedule.
      groups: sets of structures, each a mapping of leaf names to axes: index i along the axis of
        every leaf belongs to structure i, as an output channel and its bias; or a function of the
        params that gives them. Leaves in no set stay dense.
      target_sparsity: share of all structures that is pruned in the end, in [0, 1), of
        0.999 at most.
      pruning_steps: steps of all periods, at least 2 for each.
      start_pruning_step: steps before the first structure is chosen.
      pruning_periods: in how many parts the structures are chosen.
      group_divisible: of this the number of structures that stay in a set is a multiple; smaller
        sets are not pruned.
      criteria: weight of each criterion; default 0.2 for all.
      momentum: of the direction; 0 keeps none.
      dampening: share of a gradient, but the first, that is left out of the momentum.
      weight_decay: added to the gradient.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; `update` needs `params`. Its state is the momentum, and two flags per
      structure, `redundant` and `pruned`.

    Raises:
      ValueError: for a hyper-parameter out of range, an unknown leaf or criterion, axes of unequal
        length, or periods shorter than 2 steps.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import hesso
      >>> opt = hesso(0.1, [{"w": 0}], pruning_steps=2)
      >>> x = {"w": jnp.array([[0.1, 0.1], [3.0, 4.0]])}
      >>> g = {"w": jnp.ones((2, 2))}
      >>> u, _ = opt.update(g, opt.init(x), x)
      >>> (x["w"] + u["w"]).round(2).tolist()
      [[0.0, 0.0], [2.8999998569488525, 3.8999998569488525]]

    References:
      Chen et al. 2024 (arXiv 2409.09085). As in microsoft/only_train_once, of the structures with
      the lowest scores those with the lowest index are taken.
    """
    weights = checked_criteria(criteria, CRITERIA, "hesso")

    def step(g: Signal, params: Signal) -> Signal:
        d = g >> decay_weights(weight_decay, mask=mask) >> heavy_ball(momentum, dampening)
        u = -scheduled(learning_rate) * d
        return handed_on(prune_structures, u=u, d=d, params=params, criteria=weights)

    return flow(step)
