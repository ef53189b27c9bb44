"""The Poincare ball: hyperbolic space."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..notation import draws
from ..notation.errors import FlowError
from ..notation.refusing import refusing
from .manifold import Manifold, dot, length

LEAST = 1e-15
STEEPEST = 15.0


@refusing
@dataclass(frozen=True)
class PoincareBall(Manifold):
    """Vectors shorter than 1/sqrt(c) along the last axis, in a space of curvature -c.

    Lengths grow towards the boundary by lambda = 2 / (1 - c |x|^2). Points are kept a margin away
    from it, relative to the radius: 1e-5, or 4e-3 in float32, where rounding is coarse. Params of
    16 bits are too coarse there.

    Attributes:
      c: minus the curvature, positive.
      exact: follow geodesics; otherwise add and project, which is the same to first order.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.manifolds import poincare_ball
      >>> ball = poincare_ball()
      >>> ball.egrad2rgrad(jnp.array([0.0, 0.0]), jnp.array([4.0, 0.0])).tolist()
      [1.0, 0.0]
    """

    c: float = 1.0
    exact: bool = False

    def __post_init__(self) -> None:
        if not self.c > 0:
            raise FlowError(f"poincare_ball: c={self.c} must be positive")

    def misfit(self, shape: tuple[int, ...]) -> str | None:
        """See `Manifold`."""
        return None if shape and shape[-1] else "needs an axis of coordinates"

    def conformal(self, x: jax.Array) -> jax.Array:
        """lambda, by which lengths at x are multiplied."""
        return 2 / jnp.maximum(1 - self.c * dot(x, x), LEAST)

    def egrad2rgrad(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """See `Manifold`."""
        return g / self.conformal(x) ** 2

    def inner(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """See `Manifold`."""
        return self.conformal(x) ** 2 * dot(u, u)

    def retract(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """See `Manifold`."""
        if not self.exact:
            return self.project(x + u)
        root, size = jnp.sqrt(jnp.asarray(self.c, x.dtype)), jnp.maximum(length(u), LEAST)
        angle = jnp.minimum(root * self.conformal(x) * size / 2, STEEPEST)
        return self.project(self.add(x, jnp.tanh(angle) * u / (root * size)))

    def transport(self, x: jax.Array, u: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
        """See `Manifold`; along the geodesic from x to y, whatever led there."""
        return self.gyration(y, -x, v) * self.conformal(x) / self.conformal(y)

    def project(self, x: jax.Array) -> jax.Array:
        """See `Manifold`; to the margin."""
        size = length(x)
        largest = (1 - self.margin(x)) / jnp.sqrt(jnp.asarray(self.c, x.dtype))
        outside = size > largest
        return jnp.where(outside, x * (largest / jnp.where(outside, size, 1)), x)

    def project_tangent(self, x: jax.Array, v: jax.Array) -> jax.Array:
        """See `Manifold`; every vector is tangent."""
        return v

    def random(
        self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> jax.Array:
        """Points around the centre, at the ends of normal tangent vectors of a tenth."""
        drawn = 0.1 * draws.normal(key, shape, dtype)
        return PoincareBall(self.c, exact=True).retract(jnp.zeros_like(drawn), drawn / 2)

    def margin(self, x: jax.Array) -> float:
        """How far from the boundary points are kept, as a share of the radius."""
        return 1e-5 if x.dtype == jnp.float64 else 4e-3

    def add(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Moebius addition: x, moved by y."""
        c, xy, xx, yy = self.c, dot(x, y), dot(x, x), dot(y, y)
        sum_ = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
        return sum_ / jnp.maximum(1 + 2 * c * xy + c**2 * xx * yy, LEAST)

    def gyration(self, a: jax.Array, b: jax.Array, w: jax.Array) -> jax.Array:
        """How w turns when it goes by a and b in one order instead of the other."""
        k = -self.c
        ab, aw, bw, aa, bb = dot(a, b), dot(a, w), dot(b, w), dot(a, a), dot(b, b)
        A = -(k**2) * aw * bb - k * bw + 2 * k**2 * ab * bw
        B = -(k**2) * bw * aa + k * aw
        d = 1 - 2 * k * ab + k**2 * aa * bb
        return w + 2 * (A * a + B * b) / jnp.maximum(d, LEAST)

    def between(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Distances along geodesics, over the last axis.

        2 artanh(sqrt(c) |(-x) + y|) / sqrt(c),    + the Moebius addition
        """
        root = jnp.sqrt(jnp.asarray(self.c, x.dtype))
        apart = jnp.minimum(root * length(self.add(-x, y))[..., 0], 1 - 1e-7)
        return 2 * jnp.arctanh(apart) / root
