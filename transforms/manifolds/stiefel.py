"""The Stiefel manifold: matrices with orthonormal columns."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from ..notation import linalg
from ..notation.arguments import argument_of
from ..notation.refusing import refusing
from ..notation.sharding import replicated, resharded
from .manifold import Manifold, is_rounding

Metric = Literal["canonical", "euclidean"]


@refusing
@dataclass(frozen=True)
class Stiefel(Manifold):
    """Matrices (n, p) of the last two axes with X^T X = I, n >= p; other axes count them.

    Attributes:
      metric: "canonical", whose steps are Cayley transforms, or "euclidean", that of the space
        around, whose steps are orthonormalised sums.
      exact: follow geodesics of the Euclidean metric; the canonical one has no exact steps.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.manifolds import stiefel
      >>> X, G = jnp.array([[1.0], [0.0]]), jnp.array([[5.0], [1.0]])
      >>> manifold = stiefel(metric="euclidean")
      >>> manifold.egrad2rgrad(X, G).tolist()
      [[0.0], [1.0]]
    """

    metric: Metric = "canonical"
    exact: bool = False

    def __post_init__(self) -> None:
        argument_of("metric", Metric).check("stiefel", self.metric)

    def misfit(self, shape: tuple[int, ...]) -> str | None:
        """See `Manifold`."""
        fits = len(shape) >= 2 and shape[-2] >= shape[-1] > 0
        return None if fits else "needs matrices with at least as many rows as columns"

    def egrad2rgrad(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """See `Manifold`."""
        if self.metric == "euclidean":
            return self.project_tangent(x, g)
        return g - _mm(x, _mm(_t(g), x))

    def inner(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """See `Manifold`."""
        squared = jnp.sum(u * u, axis=(-2, -1), keepdims=True)
        if self.metric == "euclidean":
            return squared
        along = _mm(_t(x), u)
        return squared - jnp.sum(along * along, axis=(-2, -1), keepdims=True) / 2

    def retract(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """See `Manifold`; rounding does not add up.

        An exact step along a matrix that is not tangent ends off the manifold, as its formula says.
        """
        if self.metric == "canonical":
            return _polished(_cayley(x, u, x))
        return _polished(_geodesic(x, u)) if self.exact else _orthonormal(x + u)

    def transport(self, x: jax.Array, u: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
        """See `Manifold`; with the canonical metric, v is turned as x was."""
        return _cayley(x, u, v) if self.metric == "canonical" else self.project_tangent(y, v)

    def project(self, x: jax.Array) -> jax.Array:
        """See `Manifold`: the orthogonal polar factor."""
        left, _, right = linalg.svd(replicated(x))
        return resharded(_mm(left, right), x)

    def project_tangent(self, x: jax.Array, v: jax.Array) -> jax.Array:
        """See `Manifold`."""
        along = _mm(_t(x), v)
        return v - _mm(x, (along + _t(along)) / 2)

    def distance(self, x: jax.Array) -> jax.Array:
        """See `Manifold`; by the products of the columns."""
        identity = jnp.eye(x.shape[-1], dtype=x.dtype)
        return jnp.max(jnp.abs(_mm(_t(x), x) - identity), initial=0.0)


def _t(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)


def _mm(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")


def _orthonormal(x: jax.Array) -> jax.Array:
    """Q of a QR decomposition whose R has a positive diagonal, whatever LAPACK prefers."""
    q, r = linalg.qr(replicated(x))
    signs = jnp.where(jnp.diagonal(r, axis1=-2, axis2=-1) < 0, -1, 1).astype(q.dtype)
    return resharded(q * signs[..., None, :], x)


def _polished(x: jax.Array) -> jax.Array:
    """A step of Newton and Schulz, which squares a distance from orthonormality by rounding."""
    off = _mm(_t(x), x) - jnp.eye(x.shape[-1], dtype=x.dtype)
    by_rounding = jnp.all(is_rounding(off), axis=(-2, -1), keepdims=True)
    return x - 0.5 * _mm(x, jnp.where(by_rounding, off, 0))


def _cayley(x: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """(I - a/2)^-1 (I + a/2) v with a = u x^T - x u^T, by a system of twice the columns.

    With a = P Q^T this is v + P (I - Q^T P / 2)^-1 Q^T v.
    """
    P = jnp.concatenate([u, x], axis=-1)
    Q = jnp.concatenate([x, -u], axis=-1)
    system = jnp.eye(P.shape[-1], dtype=P.dtype) - _mm(_t(Q), P) / 2
    inside = linalg.solve(replicated(system), replicated(_mm(_t(Q), v)))
    return v + _mm(P, inside)


def _geodesic(x: jax.Array, u: jax.Array) -> jax.Array:
    """[x u] expm([[A, -S], [I, A]]) [expm(-A); 0] with A = x^T u, S = u^T u."""
    A, S = _mm(_t(x), u), _mm(_t(u), u)
    p = A.shape[-1]
    identity = jnp.broadcast_to(jnp.eye(p, dtype=A.dtype), A.shape)
    upper = jnp.concatenate([A, -S], axis=-1)
    lower = jnp.concatenate([identity, A], axis=-1)
    flow = linalg.expm(replicated(jnp.concatenate([upper, lower], axis=-2)))
    turned = _mm(flow[..., :p], linalg.expm(replicated(-A)))
    return _mm(x, turned[..., :p, :]) + _mm(u, turned[..., p:, :])
