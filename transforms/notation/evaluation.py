"""Evaluation weights: the parameters to evaluate with, where they differ from the training ones."""

from typing import Any, NamedTuple

import jax
import optax


class EvaluationWeights(NamedTuple):
    """A stored tree from which the evaluation weights follow.

    They are `scale * weights + params_scale * params`.
    """

    weights: Any
    scale: Any
    params_scale: Any


def eval_params(state: Any, params: Any) -> Any:
    """The parameters to evaluate, export and checkpoint with.

    Methods such as schedule-free, lookahead or iterate averaging train at other parameters than
    those that they recommend. For all other methods these are the params themselves.

    Args:
      state: the optimizer's state, however deeply it is wrapped.
      params: the parameters of the training loop.

    Returns:
      A tree like `params`, in its dtypes.
    """
    found = _outermost(state)
    if found is None:
        return params

    def evaluated(weight: Any, param: Any) -> Any:
        if isinstance(weight, optax.MaskedNode):
            return param
        mixed = found.scale * weight + found.params_scale * param
        return mixed.astype(param.dtype)

    masked = jax.tree.structure(found.weights, is_leaf=_is_masked)
    leaves = masked.flatten_up_to(params)
    weights = jax.tree.leaves(found.weights, is_leaf=_is_masked)
    mixed = [
        jax.tree.map(lambda p: evaluated(w, p), leaf) if _is_masked(w) else evaluated(w, leaf)
        for w, leaf in zip(weights, leaves, strict=True)
    ]
    return jax.tree.unflatten(masked, mixed)


def _outermost(state: Any) -> EvaluationWeights | None:
    """The first evaluation weights, breadth first: those of the outermost wrapper."""
    level = [state]
    while level:
        for node in level:
            if isinstance(node, EvaluationWeights):
                return node
        level = [child for node in level for child in _children(node)]
    return None


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return list(node) if isinstance(node, tuple | list) else []


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
