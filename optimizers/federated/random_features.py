"""A surrogate of fixed size, which a client can send whatever it has seen."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...transforms import Key, NonNegativeConstant, PositiveConstant, Size
from ...transforms.notation.checks import checked
from ...transforms.trees.random import typed_key
from .history import inverse_root, point_of, queries_of, scaled_values


class FeatureWeights(NamedTuple):
    """What a client sends; the mean over clients is the server's.

    Attributes:
      weights: of the features, in units of the values.
      low: the least value that was seen.
    """

    weights: Any
    low: Any


class RandomFourierFeatures(NamedTuple):
    """Cosines whose inner products are a Gaussian kernel, the same for all who draw by one key.

    Attributes:
      frequencies: one a row.
      phases: one for each.
      noise: on the diagonal of what is solved.
    """

    frequencies: jax.Array
    phases: jax.Array
    noise: jax.Array

    def fit(self, history_x: jax.Array, history_y: jax.Array, seen: Any = None) -> FeatureWeights:
        """The weights by which the features follow values at points in rows."""
        queries = queries_of("random_fourier_features", history_x, history_y, seen)
        point_of("random_fourier_features", queries.points[0], self.frequencies.shape[1])
        features = jax.vmap(self._features)(queries.points)
        scaled, low, width = scaled_values(queries)
        factor = inverse_root(features @ features.T, self.noise, queries.seen)
        return FeatureWeights(width * (features.T @ (factor @ (factor.T @ scaled))), low)

    def mean(self, sent: FeatureWeights, x: Any) -> Any:
        """The surrogate with these weights at a point."""
        return self._features(x) @ sent.weights + sent.low

    def gradient(self, sent: FeatureWeights, x: jax.Array) -> jax.Array:
        """Its gradient."""
        slopes = -self._scale() * jnp.sin(self._angles(x))
        return (slopes * sent.weights) @ self.frequencies

    def _features(self, x: jax.Array) -> jax.Array:
        return self._scale() * jnp.cos(self._angles(x))

    def _angles(self, x: jax.Array) -> jax.Array:
        point = point_of("random_fourier_features", x, self.frequencies.shape[1])
        return self.frequencies @ point + self.phases

    def _scale(self) -> float:
        return math.sqrt(2 / len(self.phases))


@checked()
def random_fourier_features(
    num_dims: Size,
    num_features: Size = 10000,
    lengthscale: PositiveConstant = 1.0,
    noise: NonNegativeConstant = 0.0,
    key: Key = 0,
) -> RandomFourierFeatures:
    r"""Features in which clients of FZooS send surrogates of what they have seen.

    With M frequencies :math:`\omega_i \sim N(0, I / l^2)` and phases :math:`b_i \sim U(0, 2 \pi)`:

    .. math::
        f(x) = \min y + \sqrt{2 / M} \sum_i w_i \cos(\omega_i \cdot x + b_i), \qquad
        \nabla f(x) = -\sqrt{2 / M} \sum_i w_i \sin(\omega_i \cdot x + b_i) \omega_i

    w solves the least squares for the values scaled to [0, 1], and is sent times their width, so
    that weights of clients whose values have different widths can be averaged. With s > 0 it is a
    ridge regression, which becomes the Gaussian process with the kernel "rbf" as M grows. Of
    several solutions the one of least norm is taken; directions that are lost in rounding are left
    out.

    Args:
      num_dims: of a point.
      num_features: M.
      lengthscale: l.
      noise: s.
      key: the same for all clients and the server.

    Returns:
      The features, a tuple of arrays `frequencies` and `phases` (and `noise`). `fit(history_x,
      history_y, seen=None)` gives the weights, a tuple of M + 1 numbers in all; `mean(sent, x)` and
      `gradient(sent, x)` evaluate one's own, another's or a mean of several. `seen`: see
      `trajectory_gradient_surrogate`.

    Raises:
      ValueError: for a hyper-parameter out of range, and for points of another size.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import random_fourier_features
      >>> features = random_fourier_features(1, num_features=500)
      >>> X = jnp.linspace(-1.0, 1.0, 9)[:, None]
      >>> sent = [features.fit(X, values) for values in (X[:, 0] ** 2, 3 * X[:, 0])]
      >>> mean = jax.tree.map(lambda *leaves: sum(leaves) / 2, *sent)
      >>> round(float(features.gradient(mean, jnp.array([0.5]))[0]), 1)
      2.0

    References:
      Shu et al. 2023, Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
      Gradients (arXiv 2308.04077), which has noise in the solution; the default without is that of
      shuyao95/FZooS, which fits up to 500 queries, among them 50 chosen as by `active_queries`
      around the server's new params. Rahimi & Recht 2007, Random Features for Large-Scale Kernel
      Machines.
    """
    dtype = jnp.result_type(float)
    of_frequencies, of_phases = jax.random.split(typed_key(key))
    normals = jax.random.normal(of_frequencies, (num_features, num_dims), dtype)
    phases = jax.random.uniform(of_phases, (num_features,), dtype, 0.0, 2 * math.pi)
    return RandomFourierFeatures(
        normals / jnp.asarray(lengthscale, dtype), phases, jnp.asarray(noise, dtype)
    )
