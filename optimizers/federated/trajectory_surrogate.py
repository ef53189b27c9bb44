"""A Gaussian process in place of a function of which only values are known."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ...transforms import PositiveConstant
from ...transforms.notation.checks import checked
from ...transforms.notation.roots import root
from .history import inverse_root, queries_of, scaled_values

Kernel = Literal["matern52", "rbf"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process that has seen a history; its posterior mean and that one's gradient.

    A pytree, so that programs can return and keep it.

    Attributes:
      points: of the history, one a row.
      weights: of the kernel at each of them.
      inverse_root: B, with B B' the inverse of the kernel's matrix with noise.
      low: the least value of the history.
      width: the largest less the least.
      lengthscale: of the kernel.
      kernel: its name.
    """

    points: jax.Array
    weights: jax.Array
    inverse_root: jax.Array
    low: jax.Array
    width: jax.Array
    lengthscale: jax.Array
    kernel: Kernel = field(metadata={"static": True})

    def mean(self, x: Any) -> Any:
        """The posterior mean at a point."""
        kernel, _ = _kernel(self.kernel, _squares(x, self.points), self.lengthscale)
        return self.width * (kernel @ self.weights) + self.low

    def gradient(self, x: jax.Array) -> jax.Array:
        """The gradient of the posterior mean at a point."""
        return self.width * (self.weights @ self._slopes(x))

    def gradient_variance(self, x: jax.Array) -> jax.Array:
        """The variance of the gradient at a point, summed over its entries.

        In units of values scaled to [0, 1]: it depends on where values are known, not on them.
        """
        _, most = _kernel(self.kernel, jnp.zeros_like(self.low), self.lengthscale)
        known = self.inverse_root.T @ self._slopes(x)
        return jnp.maximum(self.points.shape[1] * most - jnp.sum(known**2), 0.0)

    def _slopes(self, x: jax.Array) -> jax.Array:
        """The gradients, at a point, of the kernel at each of the history."""
        _, slope = _kernel(self.kernel, _squares(x, self.points), self.lengthscale)
        return slope[:, None] * (self.points - jnp.asarray(x)[None])


class SurrogateFitter(NamedTuple):
    """`fit(history_x, history_y, seen=None) -> Surrogate`."""

    fit: Callable[..., Surrogate]


@checked()
def trajectory_gradient_surrogate(
    kernel: Kernel = "matern52",
    lengthscale: PositiveConstant = 1.0,
    noise: PositiveConstant = 1e-6,
) -> SurrogateFitter:
    r"""Gradients of a function of which only values along a trajectory are known.

    With the values y at points X scaled to :math:`\tilde y` in [0, 1]:

    .. math::
        a = (K + s I)^{-1} \tilde y, \qquad
        g(x) = (\max y - \min y) \sum_j a_j \nabla_x k(x, x_j)

    and the gradient's variance, summed over its entries, is

    .. math::
        \operatorname{tr} \bigl( \nabla_x \nabla_{x'} k(x, x') |_{x' = x}
        - \nabla_x k(x, X) (K + s I)^{-1} \nabla_x k(x, X)^\top \bigr)

    Where all values are the same the gradient is 0. Fit in float64 where points lie close together:
    directions of K that are lost in rounding are left out.

    Args:
      kernel: "matern52", or "rbf": exp(-|x - x'|^2 / (2 l^2)).
      lengthscale: l.
      noise: s, without which points that repeat make K singular.

    Returns:
      What fits a `Surrogate`, with `mean(x)`, `gradient(x)` and `gradient_variance(x)`, to points
      in rows and their values: `fit(history_x, history_y, seen=None)`. With `seen`, a bool for
      each, a history of fixed size may fill up; what rows hold that are not seen has no effect.

    Raises:
      ValueError: for a hyper-parameter out of range; by `fit`, for points and values that do not
        belong together.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import trajectory_gradient_surrogate
      >>> X = jnp.linspace(-1.0, 1.0, 9)[:, None]
      >>> surrogate = trajectory_gradient_surrogate(noise=1e-4).fit(X, X[:, 0] ** 2)
      >>> round(float(surrogate.gradient(jnp.array([0.5]))[0]), 1)
      1.0

    References:
      Shu et al. 2023, Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
      Gradients (arXiv 2308.04077). shuyao95/FZooS fits the hyper-parameters anew at every step, and
      takes differences in place of the gradient. Its variance is that of the first entry alone and
      mixes first and second derivatives of another kernel; here it is the paper's covariance.
    """

    def fit(history_x: jax.Array, history_y: jax.Array, seen: Any = None) -> Surrogate:
        queries = queries_of("trajectory_gradient_surrogate", history_x, history_y, seen)
        points = queries.points
        scale = jnp.asarray(lengthscale, points.dtype)
        scaled, low, width = scaled_values(queries)
        gram, _ = _kernel(kernel, jax.vmap(_squares, (0, None))(points, points), scale)
        factor = inverse_root(gram, noise, queries.seen)
        weights = factor @ (factor.T @ scaled)
        return Surrogate(points, weights, factor, low, width, scale, kernel)

    return SurrogateFitter(fit)


def _squares(x: jax.Array, points: jax.Array) -> jax.Array:
    return jnp.sum((points - jnp.asarray(x)[None]) ** 2, axis=-1)


def _kernel(
    name: Kernel, squares: jax.Array, lengthscale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The kernel at squared distances, and what point - x is multiplied with in its gradient."""
    value, slope = {"matern52": _matern52, "rbf": _rbf}[name](squares / lengthscale**2)
    return value, slope / lengthscale**2


def _rbf(squares: Any) -> tuple[Any, Any]:
    value = jnp.exp(-squares / 2)
    return value, value


def _matern52(squares: jax.Array) -> tuple[jax.Array, jax.Array]:
    # the closed form of the slope needs no derivative of the root at 0
    r = root(5 * squares)
    decay = jnp.exp(-r)
    return (1 + r + 5 * squares / 3) * decay, 5 / 3 * (1 + r) * decay
