"""CAGrad: near the mean gradient, the direction in which the worst objective gains most."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import Flow, NonNegative, transformation
from ...transforms.notation import linalg
from ...transforms.notation.known import repeat_while
from ...transforms.notation.roots import root
from ...transforms.objectives import aggregate_by_gramian, nonnegative_qp
from .gram_matrix import normalised

MOST_ITERATIONS = 60


@method(
    "Liu et al. 2021, Conflict-Averse Gradient Descent for Multi-task Learning",
    arxiv="2110.14048",
    tags=("several-losses",),
    kind="aggregator",
    learning_rate=None,
)
@transformation()
def cagrad(
    c: NonNegative = 0.5,
    norm_eps: NonNegative = 1e-4,
    rescale: Literal["c2", "c"] | None = None,
) -> Flow:
    r"""The direction about the mean gradient that is best for the objective that gains least.

    With :math:`g_0` the mean of the stacked gradients,

    .. math::
        d = \operatorname*{argmax}_{\|d - g_0\| \le c \|g_0\|} \min_i \langle g_i, d \rangle
          = g_0 + c \|g_0\| \frac{g_w}{\|g_w\|}, \qquad
        g_w = \sum_i w_i g_i, \quad
        w = \operatorname*{argmin}_{w \ge 0, \sum w_i = 1} \langle g_w, g_0 \rangle
            + c \|g_0\| \|g_w\|

    solved up to rounding. It stands in front of any optimizer.

    One objective: 1 + c times its gradient. With a row of zeros, or gradients in opposite
    directions, g_w is zero, nothing can be gained, and the result is zero.

    Args:
      c: 0 gives the mean; the larger, the nearer to the direction of `mgda`. Usual are 0.4 to 0.5.
      norm_eps: where the squared length of all gradients together, or that of g_w relative to it,
        is below it, respectively below its square, the result is zero.
      rescale: "c2" divides by 1 + c^2, "c" by 1 + c.

    Returns:
      A transformation from stacked gradients to ordinary ones, without state.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for gradients that are not stacked.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import cagrad
      >>> aggregate = cagrad(c=0.5)
      >>> stacked = jnp.array([[2.0, 0.0], [0.0, 4.0]])
      >>> print(aggregate.update(stacked, aggregate.init(jnp.zeros(2)))[0].round(3))
      [2.118 2.   ]

    References:
      Liu et al. 2021, Conflict-Averse Gradient Descent for Multi-task Learning (arXiv 2110.14048).
      The authors' code offers the rescaling; we follow torchjd, which has none, in the thresholds.
    """

    def weights(
        G: jax.Array, scale: jax.Array, c: float | jax.Array, norm_eps: float | jax.Array
    ) -> jax.Array:
        G = normalised(G, scale, norm_eps)
        b = jnp.full(len(G), 1 / len(G), G.dtype)
        radius = c * root(jnp.maximum(_dot(b, _dot(G, b)), 0))
        y, found = best_worst_gain(G, _dot(G, b), radius)
        # y = radius w / |g_w|, with the weights w summing to 1: this is |g_w| >= norm_eps.
        is_long = found & (radius >= norm_eps * jnp.sum(y))
        moves = (is_long | (radius == 0)) & (jnp.trace(G) > 0)
        divisor = {None: 1.0, "c": 1 + c, "c2": 1 + c**2}[rescale]
        return jnp.where(moves, (b + y) / divisor, 0)

    return aggregate_by_gramian(weights, scaled=True, c=c, norm_eps=norm_eps)


class _Bracket(NamedTuple):
    low: jax.Array
    high: jax.Array
    gain: jax.Array
    iteration: int | jax.Array
    open: jax.Array


def best_worst_gain(G: jax.Array, a: jax.Array, radius: jax.Array) -> tuple[jax.Array, jax.Array]:
    """y >= 0 with y^T G y = radius^2 for which the least entry of a + G y is as large as can be.

    The gain that every objective is to have at least is searched; for each gain y solves a
    quadratic program, and on the set of its positive entries the gain that exhausts the radius is
    known in closed form.

    Args:
      G: Gramian of the gradients.
      a: their inner products with the centre.
      radius: how far from the centre one may go.

    Returns:
      y, and whether there is one: not where some convex combination of the gradients is zero, so
      that nobody can gain without another's loss, and the centre is near enough to rest.
    """

    def at(gain: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The nearest point with this gain for all, by its y, and how far away it is."""
        y = nonnegative_qp(G, a - gain)
        slack = _dot(G, y) + a - gain
        off = jnp.max(jnp.where(y > 0, jnp.abs(slack), -slack))
        exists = off <= 1e-3 * jnp.max(jnp.abs(a - gain))
        return y, jnp.where(exists, root(jnp.maximum(_dot(y, _dot(G, y)), 0)), jnp.inf)

    def narrowed(bracket: _Bracket) -> _Bracket:
        gain = bracket.gain
        y, distance = at(gain)
        is_far = distance > radius
        low, high = jnp.where(is_far, bracket.low, gain), jnp.where(is_far, gain, bracket.high)
        jump = _gain_on(y > 0, G, a, radius)
        middle = (low + high) / 2
        new = jnp.where((jump > low) & (jump < high), jump, middle)
        tolerance = 4 * jnp.finfo(G.dtype).eps * (jnp.abs(low) + jnp.abs(high))
        moved = jnp.abs(new - gain) > tolerance
        return _Bracket(low, high, new, bracket.iteration + 1, moved & (high - low > tolerance))

    # Nobody can have more than the one who is farthest behind, with the whole radius for itself.
    low = jnp.min(a)
    high = jnp.min(a + radius * root(jnp.maximum(jnp.diagonal(G), 0)))
    start = _Bracket(low, high, (low + high) / 2, 0, high > low)
    found = repeat_while(lambda b: b.open & (b.iteration < MOST_ITERATIONS), narrowed, start)
    y, distance = at(found.gain)
    return y, jnp.abs(distance - radius) <= 1e-3 * radius


def _gain_on(free: jax.Array, G: jax.Array, a: jax.Array, radius: jax.Array) -> jax.Array:
    """The gain at which the solution that is positive on `free` alone lies on the sphere."""
    m = len(G)
    jitter = m * jnp.finfo(G.dtype).eps * jnp.max(jnp.diagonal(G))
    system = jnp.where(free[:, None] & free[None, :], G, 0) + jnp.diag(jnp.where(free, jitter, 1))
    rights = jnp.stack([jnp.where(free, 1, 0).astype(G.dtype), jnp.where(free, a, 0)], axis=1)
    ones, levels = linalg.solve(system, rights).T
    p, q, r = _dot(ones, rights[:, 0]), _dot(ones, rights[:, 1]), _dot(levels, rights[:, 1])
    return (q + jnp.sqrt(q**2 - p * (r - radius**2))) / p


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
