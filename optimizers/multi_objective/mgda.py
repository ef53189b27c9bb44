"""MGDA: the shortest convex combination of the gradients."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import Flow, NonNegative, Size, transformation
from ...transforms.notation.known import repeat_while
from ...transforms.objectives import aggregate_by_gramian, simplex_minimum_norm


@method(
    "Desideri 2012, Multiple-gradient descent algorithm (MGDA) for multiobjective optimization",
    tags=("several-losses",),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def mgda(
    tol: NonNegative = 1e-3,
    max_iters: Size = 100,
    solver: Literal["frank_wolfe", "exact"] = "frank_wolfe",
) -> Flow:
    r"""The shortest convex combination of stacked gradients: a descent direction for all of them.

    .. math::
        a = \operatorname*{argmin}_{a \ge 0, \sum a_i = 1} \Bigl\| \sum_i a_i g_i \Bigr\|^2, \qquad
        g = \sum_i a_i g_i

    by Frank-Wolfe from equal weights, with :math:`G_{ij} = \langle g_i, g_j \rangle` over the whole
    tree:

    .. math::
        k = \operatorname*{argmin}_i (G a)_i, \qquad a \leftarrow (1 - \gamma) a + \gamma e_k

    where gamma minimises the length exactly, until it falls below `tol`. It stands in front of any
    optimizer.

    One objective: its gradient. With a row of zeros the result is zero: that objective cannot be
    bettered. Gradients in opposite directions: zero.

    Args:
      tol: least step of Frank-Wolfe.
      max_iters: most steps of Frank-Wolfe. From three objectives on, a hundred are visibly short of
        the minimum.
      solver: "frank_wolfe" as published; "exact" solves the quadratic program, and ignores the
        other arguments.

    Returns:
      A transformation from stacked gradients to ordinary ones, without state.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for gradients that are not stacked.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mgda
      >>> aggregate = mgda()
      >>> stacked = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> print(aggregate.update(stacked, aggregate.init(jnp.zeros(2)))[0].round(3))
      [0.8 0.4]

    References:
      Desideri 2012, Multiple-gradient descent algorithm (MGDA) for multiobjective optimization;
      Sener & Koltun 2018, Multi-Task Learning as Multi-Objective Optimization (arXiv 1810.04650),
      for Frank-Wolfe. Start, order of the tests and stopping rule are those of torchjd.
    """

    def weights(G: jax.Array, _: jax.Array, tol: float | jax.Array) -> jax.Array:
        return simplex_minimum_norm(G) if solver == "exact" else frank_wolfe(G, tol, max_iters)

    return aggregate_by_gramian(weights, scaled=True, tol=tol)


class _Search(NamedTuple):
    a: jax.Array
    gamma: jax.Array
    iteration: int | jax.Array


def frank_wolfe(G: jax.Array, tol: float | jax.Array, max_iters: int) -> jax.Array:
    """Weights after Frank-Wolfe with exact line search from the centre of the simplex."""
    m = len(G)

    def step(search: _Search) -> _Search:
        a = search.a
        products = jnp.matmul(G, a, precision="highest")
        k = jnp.argmin(products)
        towards, here, there = products[k], jnp.dot(a, products, precision="highest"), G[k, k]
        apart = jnp.maximum(here + there - 2 * towards, jnp.finfo(G.dtype).tiny)

        def share(inside: jax.Array, at_vertex: float, at_a: float) -> jax.Array:
            return jnp.where(
                there <= towards, at_vertex, jnp.where(here <= towards, at_a, inside / apart)
            )

        gamma = share(here - towards, 1.0, 0.0)
        # 1 - gamma is rounding where a gradient is far longer than the shortest
        kept = share(there - towards, 0.0, 1.0)
        vertex = jnp.arange(m) == k
        return _Search(kept * a + gamma * vertex, gamma, search.iteration + 1)

    def goes_on(search: _Search) -> jax.Array:
        return (search.gamma >= tol) & (search.iteration < max_iters)

    start = _Search(jnp.full(m, 1 / m, G.dtype), jnp.asarray(jnp.inf, G.dtype), 0)
    return repeat_while(goes_on, step, start).a
