"""Pruning by magnitude along a schedule, around any optimizer."""

from typing import Annotated, Any, Literal

import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Flow,
    Hyperparameter,
    Interval,
    Mask,
    Signal,
    absolute,
    delay,
    flow,
    leaf_where,
    lift_tree,
    merge,
    scheduled,
    split,
    transformation,
    where,
)
from ...transforms.notation.context import Context
from ...transforms.notation.known import choose
from ...transforms.notation.sharding import replicated, resharded
from ...transforms.notation.values import Leaves, promoting
from ...transforms.trees import ranks

Sparsity = Annotated[Hyperparameter, Interval(0.0, 1.0, high_open=True)]
"""The share of the entries that are zero, in [0, 1)."""

kernels = leaf_where(lambda leaf: leaf.ndim >= 2)
"""Selects the leaves with two dimensions or more."""


def _large_of(
    context: Context, kept: Leaves, size: Leaves, due: Any, sparsity: Any, scope: str
) -> Leaves:
    """The masks of all but the smallest entries, of which there are sparsity times all."""
    places = [i for i, leaf in enumerate(kept.values) if hasattr(leaf, "size") and leaf.size]
    if not places:
        return kept
    share = jnp.asarray(sparsity, context.scalar_dtype)

    def pruned(magnitudes: Any) -> Any:
        return ranks(magnitudes) >= jnp.round(share * magnitudes.size)

    def chosen() -> Leaves:
        flat = [replicated(size.values[i]).ravel() for i in places]
        sizes = [leaf.size for leaf in flat]
        if scope == "global":
            ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
            masks = jnp.split(pruned(jnp.concatenate(flat)), ends)
        else:
            masks = [pruned(leaf) for leaf in flat]
        values = list(kept.values)
        for i, mask in zip(places, masks, strict=True):
            values[i] = resharded(mask.reshape(values[i].shape), values[i])
        return Leaves(values, kept.treedef)

    return choose(due, chosen, lambda: kept)


_large = lift_tree(promoting(_large_of), "large", context=True, out=0)


@method(
    "Zhu & Gupta 2017, To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model "
    "Compression",
    arxiv="1710.01878",
    tags=("sparse",),
    required={"sparsity": 0.5},
)
@transformation()
def magnitude_pruning(
    inner: optax.GradientTransformation,
    sparsity: Sparsity,
    scope: Literal["layer", "global"] = "layer",
    select: Mask | None = None,
) -> Flow:
    """Sets the smallest entries of the params to zero, as many as a schedule of sparsity says.

        whenever s changes:   mask = all but the round(s n) smallest |x| of the n entries
        u = inner(mask g),    x <- mask (x + u)

    What is zero has the smallest magnitude, so it stays zero while s does not fall.

    Args:
      inner: a whole optimizer, learning rate included.
      sparsity: s, the share of zeros, in [0, 1); a number, or a schedule such as
        `sparsity_schedule`.
      scope: "layer": of each leaf; "global": of all selected leaves together.
      select: the leaves that are pruned: a tree of booleans, or a function of the params; default
        those with two dimensions or more.

    Returns:
      The wrapped optimizer; `update` needs `params`. Its state is that of `inner`, a flag of one
      byte per pruned leaf's entry, and the last sparsity.

    Raises:
      ValueError: for a sparsity outside [0, 1).

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import magnitude_pruning
      >>> opt = magnitude_pruning(optax.sgd(0.1), sparsity=0.5)
      >>> x = jnp.array([[1.0, -4.0], [3.0, 2.0]])
      >>> u, _ = opt.update(jnp.ones((2, 2)), opt.init(x), x)
      >>> (x + u).round(1).tolist()
      [[0.0, -4.099999904632568], [2.9000000953674316, 0.0]]

    References:
      Zhu & Gupta 2017 (arXiv 1710.01878), with their cubic `sparsity_schedule`.
    """

    def step(g: Signal, params: Signal) -> Signal:
        chosen = kernels if select is None else select
        (part, others), (x, _) = split(g, chosen), split(params, chosen)
        s = scheduled(sparsity)
        kept = delay(x == x, start=1, name="mask", dtype=jnp.int8)
        last = delay(0.0, name="sparsity")
        mask = kept << _large(kept, absolute(x), s != last, s, scope=scope)
        last << s
        u = merge(where(mask, part, 0.0), others) >> inner
        moved, rest = split(u, chosen)
        return merge(where(mask, moved, -x), rest)

    return flow(step)
