"""What a manifold must do, and the one on which it is nothing."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..notation import draws


@dataclass(frozen=True)
class Manifold(ABC):
    """Operations on one array of points; x and y are points, g a Euclidean gradient at x, u and v
    tangent vectors at x.

    Most are those of flat space, which others replace.
    """

    def misfit(self, shape: tuple[int, ...]) -> str | None:
        """What is wrong with params of this shape, as the end of a sentence; None: nothing."""
        return None

    def egrad2rgrad(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """The Riemannian gradient, a tangent vector."""
        return self.project_tangent(x, g)

    @abstractmethod
    def inner(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """The squared length of u, one number per point, with its axes kept at length 1."""

    @abstractmethod
    def retract(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """The point to which u leads from x."""

    def transport(self, x: jax.Array, u: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
        """v, carried along to y, which is `retract(x, u)`."""
        return self.project_tangent(y, v)

    @abstractmethod
    def project(self, x: jax.Array) -> jax.Array:
        """The nearest point on the manifold."""

    @abstractmethod
    def project_tangent(self, x: jax.Array, v: jax.Array) -> jax.Array:
        """The nearest tangent vector at x."""

    def distance(self, x: jax.Array) -> jax.Array:
        """How far x is off the manifold: the largest distance of a point to its projection."""
        return jnp.max(jnp.abs(x - self.project(x)), initial=0.0)

    def random(
        self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> jax.Array:
        """Points, drawn at random."""
        return self.project(draws.normal(key, shape, dtype))


@dataclass(frozen=True)
class Euclidean(Manifold):
    """Flat space: every entry is a point of its own, so that adaptive methods are the ordinary."""

    def egrad2rgrad(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """The gradient itself."""
        return g

    def inner(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """The square of every entry."""
        return jnp.real(u * jnp.conj(u))

    def retract(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """The sum."""
        return x + u

    def transport(self, x: jax.Array, u: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
        """The vector itself."""
        return v

    def project(self, x: jax.Array) -> jax.Array:
        """The point itself."""
        return x

    def project_tangent(self, x: jax.Array, v: jax.Array) -> jax.Array:
        """The vector itself."""
        return v


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """Inner products along the last axis, which is kept."""
    return jnp.sum(x * y, axis=-1, keepdims=True)


def length(x: jax.Array) -> jax.Array:
    """Lengths along the last axis, which is kept; the derivative at 0 is 0."""
    squared = dot(x, x)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)


def is_rounding(off: jax.Array) -> jax.Array:
    """Where a distance from a manifold is one that rounding can leave behind."""
    return jnp.abs(off) <= jnp.finfo(off.dtype).eps ** 0.5
