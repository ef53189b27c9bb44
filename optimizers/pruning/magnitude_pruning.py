"""Gradual pruning by magnitude."""

import itertools
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Flow,
    Hyperparameter,
    Interval,
    Mask,
    Signal,
    delay,
    flow,
    leaf_where,
    lift,
    lift_tree,
    merge,
    scheduled,
    split,
    transformation,
    where,
)
from ...transforms.notation.crowds import of_stacks
from ...transforms.notation.mapping import map_leaves, numbers_of
from ...transforms.notation.ordering import are_largest
from ...transforms.notation.packing import choose_leaves
from ...transforms.notation.sharding import replicated, resharded
from ...transforms.notation.values import Leaves

kernels = leaf_where(lambda leaf: leaf.ndim >= 2)
"""Selects matrices and what has more dimensions."""

Scope = Literal["layer", "global"]

Sparsity = Annotated[Hyperparameter, Interval(0.0, 1.0, high_open=True)]
"""The share of entries that are zero, in [0, 1)."""


@method(
    "Jin et al. 2025, The Journey Matters: Average Parameter Count over Pre-training Unifies "
    "Sparse and Dense Scaling Laws",
    arxiv="2501.12486",
    tags=("partitioned", "sparse"),
    required={"sparsity_schedule": 0.5},
)
@transformation()
def magnitude_pruning(
    inner: optax.GradientTransformation,
    sparsity_schedule: Sparsity,
    scope: Scope = "layer",
    select: Mask | None = None,
) -> Flow:
    """Sets the smallest weights to zero, more of them as training goes on, and keeps them there.

        k_t = floor(s_t n)
        P_t = P_{t-1} or the k_t smallest |x_t|, those of P_{t-1} first
        x_{t+1} = 0 where P_t,   x_t + inner(g_t where not P_t else 0) elsewhere

    n is the size of a leaf, or of all selected leaves together. What is pruned once stays so. Ties
    are cut in the order of the entries. While the sparsity stays as it is, nothing is sorted.

    Args:
      inner: any optimizer; momentum and decay that it makes of a pruned entry have no effect.
      sparsity_schedule: s; `schedules.sparsity_schedule`, any other schedule, or a number.
      scope: "layer" for the same share of every leaf, "global" for leaves that find their own.
      select: the leaves that are pruned: a tree of booleans, or a function of the params; default
        those with two dimensions or more.

    Returns:
      The wrapped optimizer; `update` needs `params`. Its state is the inner one, and a byte for
      each entry that may be pruned.

    Raises:
      ValueError: for a sparsity out of range, or an unknown scope.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import magnitude_pruning, sgd
      >>> opt = magnitude_pruning(sgd(0.5), 0.5)
      >>> x = jnp.array([[4.0, -1.0], [2.0, -3.0]])
      >>> updates, _ = opt.update(jnp.ones((2, 2)), opt.init(x), x)
      >>> (x + updates).tolist()
      [[3.5, 0.0], [0.0, -3.5]]

    References:
      Jin et al. 2025 (arXiv 2501.12486), whose code is not public; masks are those of
      google-research/jaxpruner, where they may also come back.
    """
    chosen = kernels if select is None else select

    def step(g: Signal, params: Signal) -> Signal:
        part, others = split(g, chosen)
        weights, _ = split(params, chosen)
        past = delay(_marks(weights), name="pruned")
        pruned = past << _newly(past != 0, weights, scheduled(sparsity_schedule), scope=scope)
        u, free = split(merge(where(pruned, 0.0, part), others) >> inner, chosen)
        return merge(where(pruned, -weights, u), free)

    return flow(step)


_marks = lift(lambda x: jnp.zeros_like(x, jnp.int8), "marks")

PRUNED = -1
"""In place of the magnitude of what has been pruned, so that it comes first."""


def _flat(pruned: jax.Array, x: jax.Array) -> jax.Array:
    return replicated(jnp.where(pruned, PRUNED, jnp.abs(x))).ravel()


def _smallest(magnitudes: jax.Array, count: jax.Array) -> jax.Array:
    """What was pruned, and the smallest others, up to so many."""
    return (magnitudes == PRUNED) | are_largest(-magnitudes, count)


def _shaped(found: jax.Array, like: jax.Array) -> jax.Array:
    return resharded(found.reshape(like.shape), like)


def _of_each(pruned: Leaves, x: Leaves, counts: jax.Array) -> Leaves:
    def of(count: jax.Array, p: jax.Array, leaf: jax.Array) -> jax.Array:
        return _shaped(_smallest(_flat(p, leaf), count), leaf)

    return map_leaves(of, pruned, x, stack=counts)


def _of_all(pruned: Leaves, x: Leaves, counts: jax.Array) -> Leaves:
    pairs = list(zip(pruned.present(), x.present(), strict=True))
    found = _smallest(jnp.concatenate([_flat(*pair) for pair in pairs]), counts[0])
    ends = list(itertools.accumulate(leaf.size for leaf in x.present()))[:-1]
    parts = iter(jnp.split(found, ends))
    return x.map(lambda leaf: _shaped(next(parts), leaf))


@of_stacks
def _newly_pruned_of(pruned: Leaves, x: Leaves, sparsity: Any, scope: Scope) -> Leaves:
    sizes = [leaf.size for leaf in pruned.present()]
    if not sizes:
        return pruned
    done = numbers_of(lambda p: jnp.sum(p, dtype=jnp.int32), pruned)
    if scope == "global":
        sizes, done = [sum(sizes)], jnp.sum(done, keepdims=True)
    share = jnp.asarray(sparsity, float)
    counts = jnp.floor(share * jnp.asarray(sizes, share.dtype)).astype(jnp.int32)
    newly = _of_all if scope == "global" else _of_each
    return choose_leaves(jnp.any(counts > done), lambda: newly(pruned, x, counts), lambda: pruned)


_newly = lift_tree(_newly_pruned_of, "pruned", out=0)
