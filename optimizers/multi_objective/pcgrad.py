"""PCGrad: gradients give way to each other, pair by pair."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import Flow, Key, Signal, flow, transformation
from ...transforms.notation import draws
from ...transforms.objectives import bare_array, weigh_by_gramian
from ...transforms.trees import random_key


@method(
    "Yu et al. 2020, Gradient Surgery for Multi-Task Learning",
    arxiv="2001.06782",
    tags=(
        "several-losses",
        "noise",
    ),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def pcgrad(order: Literal["random", "natural"] = "random", key: Key = 0) -> Flow:
    r"""Projects each gradient off those that it conflicts with, one after the other, and sums them.

    For every objective i, with the others j in the order of a permutation of its own:

    .. math::
        h \leftarrow g_i; \qquad
        h \leftarrow h - \frac{\langle g_j, h \rangle}{\|g_j\|^2} g_j
        \text{ wherever } \langle g_j, h \rangle < 0; \qquad
        g = \sum_i h_i

    The gradients g_j that are projected off are the original ones. It stands in front of any
    optimizer.

    One objective: its gradient. A row of zeros takes no part. Two gradients in opposite directions:
    zero.

    Args:
      order: of the projections: "random" draws permutations at every step, "natural" takes the
        objectives as they are numbered. With two objectives both are the same.
      key: seed or key of the permutations.

    Returns:
      A transformation from stacked gradients to ordinary ones, whose state is a key and a counter
      (none with the natural order). The extra argument `order`, m permutations of the m objectives,
      stands in for those drawn.

    Raises:
      ValueError: for an unknown order; in update, for gradients that are not stacked.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import pcgrad
      >>> aggregate = pcgrad()
      >>> stacked = jnp.array([[1.0, 0.0], [-2.0, 2.0]])
      >>> print(aggregate.update(stacked, aggregate.init(jnp.zeros(2)))[0].round(3))
      [0.5 2.5]

    References:
      Yu et al. 2020, Gradient Surgery for Multi-Task Learning (arXiv 2001.06782). The natural order
      is that of the package conflictfree.
    """
    is_random = order == "random"

    def step(g: Signal, order: Signal | None = None) -> Signal:
        drawn = random_key(key) if is_random else None
        return weigh_by_gramian(g, _weights, drawn, bare_array(order))

    return flow(step)


def _weights(G: jax.Array, sizes: jax.Array, key: jax.Array, given: jax.Array | None) -> jax.Array:
    m = len(G)
    everyone = jnp.arange(m)
    if given is not None:
        orders = jnp.asarray(given)
    elif key is None:
        orders = jnp.tile(everyone, (m, 1))
    else:
        orders = jax.vmap(draws.permutation, (0, None))(draws.split(key, m), m)

    def visit(W: jax.Array, others: jax.Array) -> tuple[Any, None]:
        products = jnp.sum(W * G[others], axis=1)
        lengths = G[others, others]
        conflicts = (products < 0) & (others != everyone) & (lengths > 0)
        back = jnp.where(conflicts, products / jnp.where(lengths > 0, lengths, 1), 0)
        return W - back[:, None] * (everyone[None, :] == others[:, None]), None

    W, _ = jax.lax.scan(visit, jnp.diag(sizes), orders.T)
    return jnp.sum(W, axis=0)
