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
    return params if found is None else _mixed(found, params)


def _mixed(found: EvaluationWeights, params: Any) -> Any:
    structure: Any
    weights, structure = jax.tree.flatten(found.weights, is_leaf=_is_masked)

    def mix(weight: Any, param: Any) -> Any:
        if _is_masked(weight):
            return param
        mixed = found.scale * weight + found.params_scale * param
        return mixed.astype(param.dtype)

    pairs = zip(weights, structure.flatten_up_to(params), strict=True)
    return jax.tree.unflatten(structure, [mix(weight, param) for weight, param in pairs])


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
