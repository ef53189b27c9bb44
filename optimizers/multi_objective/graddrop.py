"""GradDrop: every entry takes the sign that most objectives want, more likely the more do."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import Flow, Key, Signal, flow, transformation
from ...transforms.notation import draws
from ...transforms.notation.rows import sum_of_rows
from ...transforms.objectives import check_vector, draw_for_entries, reduce_objectives, vector_for
from ...transforms.objectives.preferences import Vector
from ...transforms.trees import random_key


@method(
    "Chen et al. 2020, Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign "
    "Dropout",
    arxiv="2010.06808",
    tags=(
        "several-losses",
        "noise",
        "sign",
    ),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def graddrop(
    leak: Vector | None = None, f: Callable[[jax.Array], jax.Array] | None = None, key: Key = 0
) -> Flow:
    r"""Draws a sign for every entry, and drops the gradients that have the other.

    With :math:`g_i` the stacked gradients and U uniform on [0, 1), one draw per entry for all
    objectives:

    .. math::
        P = \tfrac12 \Bigl(1 + \frac{\sum_i g_i}{\sum_i |g_i|}\Bigr), \qquad
        M_i = [f(P) > U][g_i > 0] + [f(P) < U][g_i < 0], \qquad
        g = \sum_i (\ell_i + (1 - \ell_i) M_i) g_i

    entry by entry. It stands in front of any optimizer.

    One objective: its gradient. A row of zeros takes no part. Gradients in opposite directions:
    one or the other, entry by entry, each with probability 1/2.

    Args:
      leak: l, in [0, 1], one for each objective: the share of a gradient that is never dropped;
        default 0.
      f: an increasing function of P; default P itself.
      key: seed or key of the draws.

    Returns:
      A transformation from stacked gradients to ordinary ones, whose state is a key and a counter.
      The extra argument `uniforms`, a tree like one gradient, stands in for U.

    Raises:
      ValueError: for a bad `leak`; in update, for gradients that are not stacked. TypeError for
        complex gradients, which have no sign.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import graddrop
      >>> aggregate = graddrop()
      >>> stacked = jnp.array([[1.0, 2.0], [-3.0, 2.0]])
      >>> state, U = aggregate.init(jnp.zeros(2)), jnp.array([0.5, 0.5])
      >>> aggregate.update(stacked, state, uniforms=U)[0].tolist()
      [-3.0, 4.0]

    References:
      Chen et al. 2020, Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign
      Dropout (arXiv 2010.06808), which applies it to gradients of activations; here as in torchjd.
    """
    check_vector("graddrop", "leak", leak)

    def kept(g: jax.Array, u: jax.Array) -> jax.Array:
        return _kept(g, u, _per_objective(leak, g), f)

    def step(g: Signal, uniforms: Signal | None = None) -> Signal:
        u = draw_for_entries(g, random_key(key), draws.uniform_in_place, uniforms)
        return reduce_objectives(kept, "drop_signs")(g, u)

    return flow(step)


def _per_objective(leak: Vector | None, g: jax.Array) -> jax.Array:
    return vector_for("graddrop", "leak", leak, g, 0.0).reshape(-1, *[1] * (g.ndim - 1))


def _kept(g: jax.Array, u: jax.Array, leak: jax.Array, f: Any) -> jax.Array:
    if jnp.issubdtype(g.dtype, jnp.complexfloating):
        raise TypeError("complex gradients have no sign")
    total = sum_of_rows(jnp.abs(g))
    purity = 0.5 * (1 + sum_of_rows(g) / jnp.where(total > 0, total, 1))
    purity = purity if f is None else f(purity)
    above, below = (purity > u)[None], (purity < u)[None]
    keeps = jnp.where(g > 0, above, below & (g < 0))
    return sum_of_rows((leak + (1 - leak) * keeps) * g)
