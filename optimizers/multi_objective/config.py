"""ConFIG: the direction at the same acute angle to every gradient."""

from typing import Literal

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import Flow, FlowError, Signal, flow, transformation
from ...transforms.notation.roots import maximum_over, root
from ...transforms.objectives import (
    check_vector,
    symmetric_pseudo_inverse,
    vector_for,
    weigh_by_gramian,
)
from ...transforms.objectives.preferences import Vector
from .gram_matrix import cosines

Length = Literal["projection", "min", "max", "harmonic", "arithmetic", "geometric"]


@method(
    "Liu, Chu & Thuerey 2024, ConFIG: Towards Conflict-free Training of Physics Informed "
    "Neural Networks",
    arxiv="2408.11104",
    tags=("several-losses",),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def config(
    pref_vector: Vector | None = None,
    length: Length | int = "projection",
    use_least_squares: bool = True,
) -> Flow:
    r"""The direction that has the same cosine with every one of the stacked gradients.

    With :math:`C` the Gramian of the gradients at unit length, over the whole tree,

    .. math::
        x = \sum_i (C^+ s)_i \frac{g_i}{\|g_i\|}, \qquad d = \frac{x}{\|x\|}, \qquad
        g = \ell\, d, \quad \ell = \sum_i \langle g_i, d \rangle

    so that :math:`\langle g_i, d \rangle / \|g_i\|` is in proportion to :math:`s_i`, and positive,
    wherever the gradients are independent. It stands in front of any optimizer.

    One objective: its gradient. A row of zeros takes no part. Gradients in opposite directions:
    zero.

    Args:
      pref_vector: s, one number for each objective; default 1.
      length: l. "projection" is the sum above; the others put every gradient at one length r,
        :math:`\ell = r \sum_i \langle g_i, d \rangle / \|g_i\|`: the "min", the "max", or the
        "harmonic", "arithmetic" or "geometric" mean of the lengths, or that of the objective with
        the given number.
      use_least_squares: of nearly dependent gradients, leave out combinations with an eigenvalue of
        C below 1e-12 (1e-6 in float32) of the largest; otherwise only those below rounding.

    Returns:
      A transformation from stacked gradients to ordinary ones, without state.

    Raises:
      ValueError: as `upgrad`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import config
      >>> aggregate = config()
      >>> stacked = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> print(aggregate.update(stacked, aggregate.init(jnp.zeros(2)))[0].round(3))
      [2. 2.]

    References:
      Liu, Chu & Thuerey 2024, ConFIG: Towards Conflict-free Training of Physics Informed Neural
      Networks (arXiv 2408.11104), and the authors' package conflictfree, which solves with the
      gradients themselves.
    """
    check_vector("config", "pref_vector", pref_vector)

    def weights(G: jax.Array, sizes: jax.Array) -> jax.Array:
        s = vector_for("config", "pref_vector", pref_vector, G, 1.0)
        lengths = root(jnp.diagonal(G))
        C, inverse_lengths = cosines(G)
        k = _dot(symmetric_pseudo_inverse(C, _cutoff(G, use_least_squares)), s)
        along = _dot(C, k)
        squared = jnp.sum(k * along)
        is_there = squared > jnp.finfo(G.dtype).eps * jnp.sum(s**2)
        x_norm = jnp.sqrt(jnp.where(is_there, squared, 1))
        total = jnp.sum(along * _lengths(lengths * sizes, length)) / x_norm
        return jnp.where(is_there, total / x_norm * k * inverse_lengths, 0)

    def step(g: Signal) -> Signal:
        return weigh_by_gramian(g, weights)

    return flow(step)


def _cutoff(G: jax.Array, use_least_squares: bool) -> jax.Array:
    rounding = len(G) * jnp.finfo(G.dtype).eps
    return jnp.where(use_least_squares, 1e-12 if G.dtype == jnp.float64 else 1e-6, rounding)


def _lengths(lengths: jax.Array, choice: Length | int) -> jax.Array:
    """What each gradient counts as long, given how long they are."""
    if isinstance(choice, int):
        if not 0 <= choice < len(lengths):
            raise FlowError(f"config: length={choice} is not the number of one of {len(lengths)}")
        return lengths[choice]
    means = {
        "projection": lambda: lengths,
        "min": lambda: -maximum_over(-lengths, initial=None),
        "max": lambda: maximum_over(lengths),
        "harmonic": lambda: len(lengths) / jnp.sum(1 / lengths),
        "arithmetic": lambda: jnp.mean(lengths),
        "geometric": lambda: jnp.exp(jnp.mean(jnp.log(lengths))),
    }
    return means[choice]()


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
