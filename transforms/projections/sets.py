"""Sets, each a function from a tree of points to the nearest tree in the set.

That is the whole interface: any function of that kind can stand in their place, those of
`optax.projections` with their arguments bound, too.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..notation.errors import FlowError
from ..notation.refusing import refusing


@refusing
@dataclass(frozen=True)
class Box:
    """Every entry between two bounds.

    Attributes:
      lower, upper: numbers, arrays that broadcast to every leaf, or trees like the point.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.projections import box
      >>> box(-1.0, 1.0)(jnp.array([-3.0, 0.5])).tolist()
      [-1.0, 0.5]
    """

    lower: optax.Params = -np.inf
    upper: optax.Params = np.inf

    def __post_init__(self) -> None:
        if not isinstance(self.lower, int | float) or not isinstance(self.upper, int | float):
            return
        if not self.lower <= self.upper:
            raise FlowError(f"box: lower={self.lower} is above upper={self.upper}")

    def __call__(self, point: optax.Params) -> optax.Params:
        """The nearest point of the box."""
        lower, upper = (_like(bound, point) for bound in (self.lower, self.upper))
        return jax.tree.map(jnp.clip, point, lower, upper)


@refusing
@dataclass(frozen=True)
class Simplex:
    """Every vector along the last axis nonnegative, with a given sum.

    Attributes:
      total: the sum, positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.projections import simplex
      >>> simplex()(jnp.array([2.0, 0.5, 1.5])).tolist()
      [0.75, 0.0, 0.25]
    """

    total: float | jax.Array = 1.0

    def __post_init__(self) -> None:
        if not self.total > 0:
            raise FlowError(f"simplex: total={self.total} must be positive")

    def __call__(self, point: optax.Params) -> optax.Params:
        """The nearest point of the simplex."""
        return jax.tree.map(self._nearest, point)

    def _nearest(self, leaf: jax.Array) -> jax.Array:
        x = jnp.atleast_1d(leaf)
        if not x.size:
            return leaf
        falling = -jnp.sort(-x, axis=-1)
        excess = jnp.cumsum(falling, axis=-1) - self.total
        counts = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
        # The entries that stay positive are the largest ones; the others do not pay for the shift.
        support = jnp.sum(falling * counts > excess, axis=-1, keepdims=True)
        shift = jnp.take_along_axis(excess, support - 1, axis=-1) / support.astype(x.dtype)
        return jnp.maximum(x - shift, 0).reshape(jnp.shape(leaf))


@refusing
@dataclass(frozen=True)
class Ball:
    """At most a distance from a centre, over all entries of the point together.

    Attributes:
      radius: the distance, not negative.
      center: a number, or a tree like the point.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.projections import ball
      >>> ball(5.0)({"x": jnp.array([6.0]), "y": jnp.array([8.0])})["x"].tolist()
      [3.0]
    """

    radius: float | jax.Array = 1.0
    center: optax.Params = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.radius, int | float) and not self.radius >= 0:
            raise FlowError(f"ball: radius={self.radius} must not be negative")

    def __call__(self, point: optax.Params) -> optax.Params:
        """The nearest point of the ball."""
        center = _like(self.center, point)
        offset = jax.tree.map(lambda x, c: x - c, point, center)
        squared = sum(jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(offset))
        distance = jnp.sqrt(jnp.where(squared > 0, squared, 1))
        outside = (squared > 0) & (distance > self.radius)
        shrink = jnp.where(outside, self.radius / distance, 1)
        return jax.tree.map(
            lambda c, x: c + x * shrink.astype(jnp.finfo(x.dtype).dtype), center, offset
        )


@refusing
@dataclass(frozen=True)
class HalfSpace:
    """The points x with <normal, x> <= offset, over all entries together.

    Attributes:
      normal: a tree like the point, not zero.
      offset: a number.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.projections import half_space
      >>> half_space(jnp.array([1.0, 1.0]), 1.0)(jnp.array([2.0, 1.0])).tolist()
      [1.0, 0.0]
    """

    normal: optax.Params
    offset: float | jax.Array = 0.0

    def __call__(self, point: optax.Params) -> optax.Params:
        """The nearest point of the half-space."""
        normal = jax.tree.map(lambda a, x: jnp.asarray(a, x.dtype), self.normal, point)
        squared = sum(jnp.sum(jnp.abs(a) ** 2) for a in jax.tree.leaves(normal))
        products = jax.tree.map(lambda a, x: jnp.sum(jnp.real(a.conj() * x)), normal, point)
        excess = jnp.maximum(sum(jax.tree.leaves(products)) - self.offset, 0) / squared
        return jax.tree.map(
            lambda x, a: x - excess.astype(jnp.finfo(x.dtype).dtype) * a, point, normal
        )


def _like(value: optax.Params, point: optax.Params) -> optax.Params:
    """A number, an array or a tree as a tree like the point, in its dtypes."""
    is_one = isinstance(value, int | float) or hasattr(value, "dtype")
    spread = jax.tree.map(lambda _: value, point) if is_one else value
    return jax.tree.map(lambda v, x: jnp.asarray(v, x.dtype), spread, point)


box, simplex, ball, half_space = Box, Simplex, Ball, HalfSpace
