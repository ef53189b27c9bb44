"""The unit sphere."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ..notation.refusing import refusing
from .manifold import Manifold, dot, is_rounding, length


@refusing
@dataclass(frozen=True)
class Sphere(Manifold):
    """Vectors of length 1 along the last axis; other axes count them.

    Attributes:
      exact: follow great circles; otherwise add and normalise, which is the same to first order.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.manifolds import sphere
      >>> x, u = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
      >>> print(sphere().retract(x, u).round(3), sphere(exact=True).retract(x, u).round(3))
      [0.707 0.707] [0.54  0.841]
    """

    exact: bool = False

    def misfit(self, shape: tuple[int, ...]) -> str | None:
        """See `Manifold`."""
        return None if shape and shape[-1] else "needs an axis of coordinates"

    def inner(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """See `Manifold`."""
        return dot(u, u)

    def retract(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """See `Manifold`; rounding does not add up.

        An exact step along a vector that is not tangent ends off the sphere, as its formula says.
        """
        if not self.exact:
            return self.project(x + u)
        angle = length(u)
        y = x * jnp.cos(angle) + u * jnp.sinc(angle / jnp.pi)
        size = length(y)
        return y / jnp.where(is_rounding(size - 1), size, 1)

    def project(self, x: jax.Array) -> jax.Array:
        """See `Manifold`; zero, which is nearest to none, stays zero."""
        size = length(x)
        return x / jnp.where(size > 0, size, 1)

    def project_tangent(self, x: jax.Array, v: jax.Array) -> jax.Array:
        """See `Manifold`."""
        return v - dot(x, v) * x

    def distance(self, x: jax.Array) -> jax.Array:
        """See `Manifold`."""
        return jnp.max(jnp.abs(length(x) - 1), initial=0.0)
