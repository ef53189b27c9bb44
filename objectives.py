"""Gradients of several losses at once, as the aggregators take them.

losses, grads = objective_gradients(losses_fn, params)
updates, state = chain(upgrad(), adam(1e-3)).update(grads, state, params)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .transforms import FlowError, Mask, Size, checked
from .transforms.notation import Tree


@checked()
def objective_gradients(
    losses_fn: Callable[[Any], Any],
    params: Tree,
    *,
    shared: Mask | None = None,
    chunk_size: Size | None = None,
    has_aux: bool = False,
) -> tuple[Any, Any]:
    """Losses of several objectives at once, and their gradients, stacked.

    One evaluation of the model, one back-propagation per objective.

    Where objectives share a trunk but have heads of their own, only gradients of the trunk
    conflict. With `shared` only those are stacked; every other leaf gets the gradient of the sum of
    the losses, which for a head is that of its own loss. Train the two with two optimizers:

        optax.partition({True: chain(upgrad(), adam(1e-3)), False: adam(1e-3)}, shared)

    Args:
      losses_fn: function of the params alone: params -> losses, a vector or any tree of real
        scalars, which are numbered in tree order. Of an NNX model: `training.nnx_value_fn`.
      params: where to evaluate it.
      shared: the leaves whose gradients are stacked: a tree of booleans, or a prefix of it, or a
        function of the params; default all.
      chunk_size: how many objectives are propagated back at the same time; default all. Memory for
        activations grows with it.
      has_aux: whether `losses_fn` returns `(losses, anything)`.

    Returns:
      The losses as `losses_fn` gave them (with has_aux, the pair), and a tree like the params whose
      leaves have a leading axis of objectives where they are shared.

    Raises:
      ValueError: for losses that are no real scalars, or a `shared` that does not fit the params.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import objective_gradients
      >>> losses_fn = lambda w: jnp.stack([jnp.sum(w**2), 3 * w[0]])
      >>> losses, grads = objective_gradients(losses_fn, jnp.array([1.0, 2.0]))
      >>> losses.tolist(), grads.tolist()
      ([5.0, 3.0], [[2.0, 4.0], [3.0, 0.0]])
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(params)
    flags = _flags(shared, params)
    picked = [leaf for leaf, flag in zip(leaves, flags, strict=True) if flag]
    others = [leaf for leaf, flag in zip(leaves, flags, strict=True) if not flag]

    def vector_of(picked: Any, others: Any) -> Any:
        sources = {True: iter(picked), False: iter(others)}
        found = losses_fn(treedef.unflatten([next(sources[flag]) for flag in flags]))
        return _vector(found[0] if has_aux else found), found

    losses, pull_back, found = jax.vjp(vector_of, picked, others, has_aux=True)
    stacked = _by_chunks(lambda one: pull_back(one)[0], jnp.eye(len(losses)), chunk_size, losses)
    sources = {True: iter(stacked), False: iter(pull_back(jnp.ones_like(losses))[1])}
    return found, treedef.unflatten([next(sources[flag]) for flag in flags])


def _flags(shared: Any, params: Any) -> list[bool]:
    """Whether each leaf is shared."""
    mask = shared(params) if callable(shared) else True if shared is None else shared
    try:
        spread = jax.tree.map(lambda flag, part: jax.tree.map(lambda _: flag, part), mask, params)
    except (ValueError, TypeError, KeyError) as error:
        raise FlowError(f"objective_gradients: shared does not fit the params: {error}") from error
    flags = jax.tree.leaves(spread)
    if not all(isinstance(flag, bool) for flag in flags):
        raise FlowError("objective_gradients: shared must be a tree of Python booleans")
    return flags


def _vector(losses: Any) -> Any:
    """A vector of the losses, in tree order."""
    parts = [jnp.asarray(leaf) for leaf in jax.tree.leaves(losses)]
    is_vector = len(parts) == 1 and parts[0].ndim == 1 and parts[0].size > 0
    are_scalars = bool(parts) and all(part.ndim == 0 for part in parts)
    if not (is_vector or are_scalars):
        shapes = [part.shape for part in parts]
        raise FlowError(
            f"objective_gradients: losses_fn must return a vector or scalars, not {shapes}"
        )
    vector = parts[0] if is_vector else jnp.stack(parts)
    if not jnp.issubdtype(vector.dtype, jnp.floating):
        raise FlowError(f"objective_gradients: losses must be real, they are {vector.dtype}")
    return vector


def _by_chunks(pull_back: Any, basis: Any, chunk_size: int | None, losses: Any) -> Any:
    basis = basis.astype(losses.dtype)
    if chunk_size is None or chunk_size >= len(basis):
        return jax.vmap(pull_back)(basis)
    return jax.lax.map(pull_back, basis, batch_size=chunk_size)
