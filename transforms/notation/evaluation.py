"""Evaluation weights: the parameters to evaluate with, where they differ from the training ones."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

import jax
import optax

from .domains import Trees
from .errors import FlowError
from .paths import joined, named_leaves
from .refusing import refusing
from .values import serializable

Params = TypeVar("Params")


class EvaluationWeights(NamedTuple):
    """A stored tree from which the evaluation weights follow.

    They are `scale * weights + params_scale * params`.
    """

    weights: optax.Params
    scale: jax.Array
    params_scale: jax.Array


serializable(EvaluationWeights, EvaluationWeights._fields)


@refusing
def eval_params(state: optax.OptState | None, params: Annotated[Params, Trees()]) -> Params:
    """The parameters to evaluate, export and checkpoint with.

    A function of a state and params.

    Methods such as schedule-free, lookahead or iterate averaging train at other parameters than
    those that they recommend. For all other methods these are the params themselves. Where several
    groups of leaves have evaluation weights of their own, every leaf has those of its group; where
    one such method wraps another, those of the outer one hold.

    Args:
      state: the optimizer's state, however deeply it is wrapped: also `nnx.state(optimizer)`, a
        Flax `TrainState`, a Flax state dict, or what a checkpoint gives without a target, as long
        as the names in it are there.
      params: the parameters of the training loop.

    Returns:
      A tree like `params`, in its dtypes.

    Raises:
      FlowError: for what is no state or has no names, such as a list of leaves, and for evaluation
        weights of another model.
    """
    if state is not None and _is_leaf(state):
        raise FlowError(f"eval_params: {type(state).__name__} is not an optimizer state")
    if _has_lost_its_names(state):
        raise FlowError(
            f"eval_params: a {type(state).__name__} of arrays does not say which of them are "
            "evaluation weights; give the state itself, or one restored with its names"
        )
    marks = list(_marks(state))
    if not marks:
        return params
    found = named_leaves(params)
    mixed = dict(found)
    for mark in reversed(marks):  # the outermost last: it holds
        _mix(mark, found, mixed)
    evaluated: Params = jax.tree.unflatten(jax.tree.structure(params), mixed.values())
    return evaluated


def _mix(
    mark: Mapping[str, Any],
    params: Mapping[tuple[str, ...], Any],
    mixed: dict[tuple[str, ...], Any],
) -> None:
    """Enters the evaluation weights of the leaves that a mark has."""
    scale, params_scale = (_only(mark[name]) for name in ("scale", "params_scale"))
    for name, weight in named_leaves(mark["weights"]).items():
        if name not in params and name[-1:] == ("value",):  # a Flax variable, written out
            name = name[:-1]
        if name not in params:
            known = ", ".join(map(joined, params))
            raise FlowError(
                f"eval_params: the state has evaluation weights of {joined(name)}, which is not "
                f"among the params: {known}"
            )
        param = params[name]
        mixed[name] = (scale * weight + params_scale * param).astype(param.dtype)


def _only(scalar: optax.Params) -> jax.Array:
    """A scalar, out of whatever holds it."""
    value: jax.Array
    (value,) = jax.tree.leaves(scalar)
    return value


def _marks(state: object) -> Iterator[Mapping[str, Any]]:
    """All evaluation weights, the outermost first; none that lie within others."""
    level: list[object] = [state]
    while level:
        marks = [_as_mark(node) for node in level]
        yield from (mark for mark in marks if mark is not None)
        rest = [node for node, mark in zip(level, marks, strict=True) if mark is None]
        level = [child for node in rest for child in _children(node)]


def _as_mark(node: object) -> Mapping[str, Any] | None:
    """The parts of evaluation weights by name, also where the containers were renamed."""
    fields = set(EvaluationWeights._fields)
    if set(getattr(node, "_fields", ())) == fields:
        return {name: getattr(node, name) for name in fields}
    return node if isinstance(node, Mapping) and set(map(str, node)) == fields else None


def _children(node: object) -> list[object]:
    if hasattr(node, "opt_state"):  # a Flax TrainState or nnx.Optimizer
        return [node.opt_state]
    if isinstance(node, Mapping):
        return list(node.values())
    if isinstance(node, tuple | list):
        return list(node)
    return [] if _is_leaf(node) else jax.tree.leaves(node, is_leaf=lambda x: x is not node)


def _is_leaf(node: object) -> bool:
    return jax.tree_util.all_leaves([node])


def _has_lost_its_names(state: object) -> bool:
    if not isinstance(state, list) or not state:
        return False
    return all(hasattr(leaf, "dtype") for leaf in state)
