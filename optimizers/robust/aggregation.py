"""From rules to transformations: of stacked gradients, or of workers along an axis."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax

from ...transforms import (
    Flow,
    FlowError,
    Signal,
    delay,
    flow,
    lift_tree,
    step_count,
    transformation,
)
from ...transforms.notation.context import Context
from ...transforms.notation.values import Leaves
from ...transforms.objectives.stacked import count_objectives, like_params
from ...transforms.workers import gathered_over


@transformation()
def aggregate(rule: Callable[..., optax.Params] | optax.GradientTransformation) -> Flow:
    """A rule as a transformation from stacked gradients to one, to stand in front of an optimizer.

    Args:
      rule: a function from a stacked tree to a tree, such as `krum(1)`; one with an argument
        `previous` is given its last result, at first 0, one with an argument `count` the number of
        steps before. An aggregator of several losses, which is a transformation already, stays what
        it is.

    Returns:
      The transformation; its state is what the rule is given beside the gradients, if anything.

    Raises:
      ValueError: for what is neither; in update, for gradients that are not stacked.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import aggregate, krum
      >>> tx = aggregate(krum(num_byzantine=1))
      >>> stacked = jnp.array([[1.0], [1.2], [1.3], [1.5], [99.0]])
      >>> tx.update(stacked, tx.init(jnp.zeros(1)))[0].tolist()
      [1.2000000476837158]
    """
    _check_rule("aggregate", rule)
    return flow(lambda g: _made_one(g, rule))


@transformation()
def robust_aggregate(
    rule: Callable[..., optax.Params] | optax.GradientTransformation, axis_name: str | None = None
) -> Flow:
    """Gathers the gradients of all workers along an axis and applies a rule to them.

    Each worker passes its own gradient, inside `jax.shard_map` over a mesh with the axis or under
    `jax.vmap` with a name for it; all get the same result. It stands in front of an optimizer.

    Args:
      rule: see `aggregate`.
      axis_name: the axis along which the workers lie; None: there is one.

    Returns:
      The transformation; its state is that of the rule.

    Raises:
      ValueError: for what is no rule; in update, for an axis that is not there, or too few workers
        for the rule.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import coordinate_median, robust_aggregate
      >>> tx, x = robust_aggregate(coordinate_median(), "workers"), jnp.zeros(1)
      >>> step = lambda g: tx.update(g, tx.init(x), x)[0]
      >>> jax.jit(jax.vmap(step, axis_name="workers"))(jnp.array([[1.0], [2.0], [99.0]])).tolist()
      [[2.0], [2.0], [2.0]]
    """
    _check_rule("robust_aggregate", rule)
    return flow(lambda g: _made_one(gathered_over(g, axis_name), rule))


def _check_rule(label: str, rule: object) -> None:
    if not (hasattr(rule, "update") or callable(rule)):
        raise FlowError(
            f"{label}: rule={rule!r} must be a function from a stacked tree to a tree, such as "
            "krum(1), or a transformation of stacked gradients"
        )


def _made_one(
    stacked: Signal, rule: Callable[..., optax.Params] | optax.GradientTransformation
) -> Signal:
    if hasattr(rule, "update"):
        return stacked >> rule
    applied = lift_tree(_applied(rule), "apply_rule", context=True, out=like_params)
    parameters = inspect.signature(rule).parameters
    if "count" in parameters:
        return applied(stacked, None, step_count() - 1)
    if "previous" not in parameters:
        return applied(stacked)
    previous = delay(applied(stacked, None), name="previous")
    return previous << applied(stacked, previous)


def _applied(rule: Callable[..., Any]) -> Callable[..., Leaves]:
    def run(
        context: Context,
        tree: Leaves,
        previous: Leaves | None = None,
        count: jax.Array | None = None,
    ) -> Leaves:
        count_objectives(context, tree, "workers")
        beside = {} if previous is None else {"previous": previous.tree()}
        beside |= {} if count is None else {"count": count}
        return Leaves.up_to(tree.treedef, rule(tree.tree(), **beside))

    return run
