"""Kronecker products of triangular or diagonal matrices as a Lie group."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ....transforms import is_neutral
from ....transforms.kronecker.identities import identity_beside
from ....transforms.kronecker.matrix_roots import multiply
from ....transforms.kronecker.tensor_statistics import (
    along_modes,
    as_tensors,
    mode_product,
    unfolding,
)
from ....transforms.notation import draws, linalg
from ....transforms.notation.roots import maximum_over, norm, smooth_quotient
from .lie_groups import shrinking, times, tiny_of


def norm_lower_bound(a: jax.Array) -> jax.Array:
    """A lower bound of the spectral norm of each matrix of a batch, from its largest row or column.

    With a the row (or column) of largest norm and x = A a, it is |A^T x| / |x|.

    Args:
      a: (batch, n, n).
    """
    # of a matrix c times as long the bound is c times as large, whatever unit it is taken in
    size = jax.lax.stop_gradient(maximum_over(jnp.abs(a), (1, 2)))
    a = a / jnp.where(size > 0, size, 1)[:, None, None]
    rows, columns = jnp.sum(a * a, axis=2), jnp.sum(a * a, axis=1)
    by_column = maximum_over(columns, 1) > maximum_over(rows, 1)
    b = jnp.where(by_column[:, None, None], jnp.swapaxes(a, 1, 2), a)
    largest = jnp.argmax(jnp.where(by_column[:, None], columns, rows), axis=1)
    row = jnp.take_along_axis(b, largest[:, None, None], axis=1)
    x = multiply(b, jnp.swapaxes(row, 1, 2))
    length = norm(x, axis=1, keepdims=True)
    back = multiply(jnp.swapaxes(x / jnp.where(length > 0, length, 1), 1, 2), b)
    return size * norm(back[:, 0], axis=1)


class KroneckerElement(NamedTuple):
    """Q = Q_1 x ... x Q_k for every tensor of a stack.

    Attributes:
      factors: (batch, n, n) upper triangular, or (batch, n) diagonal, by dimension.
      smoothness: running Lipschitz constants of the factors, (batch,) each.
    """

    factors: tuple[Any, ...]
    smoothness: tuple[Any, ...]


@dataclass(frozen=True)
class Kronecker:
    """Kronecker products of upper triangular or diagonal matrices.

    Attributes:
      max_size: larger dimensions get a diagonal factor.
      max_skew: so do those with n^2 above max_skew times the size of the tensor.
      normalizer: "2nd" or "1st": what the step of a factor is divided by.
      balance_probability: of a step that equalises the magnitudes of the factors.
    """

    max_size: float
    max_skew: float
    normalizer: str
    balance_probability: float | jax.Array
    batched = True

    def _dense(self, shape: tuple[int, ...]) -> list[bool]:
        size = 1
        for n in shape:
            size *= n
        return [1 < n <= self.max_size and n * n <= self.max_skew * size for n in shape]

    def empty(self, x: jax.Array) -> KroneckerElement:
        """Zeros in the shapes of the factors."""
        shape = as_tensors(x).shape
        dense = self._dense(shape[1:])
        factors = tuple(
            jnp.zeros((shape[0], n, n) if full else (shape[0], n), x.dtype)
            for n, full in zip(shape[1:], dense, strict=True)
        )
        return KroneckerElement(factors, tuple(jnp.zeros(shape[0], x.dtype) for _ in factors))

    def start(self, x: jax.Array, scale: jax.Array, key: jax.Array) -> KroneckerElement:
        """scale^(1/k) I for each of the k factors."""
        empty = self.empty(x)
        root = scale ** (1 / len(empty.factors))
        factors = tuple(
            root[:, None, None] * identity_beside(f)
            if f.ndim == 3
            else root[:, None] * jnp.ones_like(f)
            for f in empty.factors
        )
        return KroneckerElement(factors, empty.smoothness)

    def moved(
        self,
        q: KroneckerElement,
        v: jax.Array,
        h: jax.Array,
        rate: jax.Array,
        key: jax.Array,
        t: jax.Array,
    ) -> KroneckerElement:
        """All factors, each along the gradient of the same A = Q h and B = Q^-T v."""
        factors = self._balanced(q.factors, key)
        a, b = along_modes(as_tensors(h), factors), as_tensors(v)
        for axis, factor in enumerate(factors):
            b = _solved_transposed(b, factor, axis)
        scale = shrinking(a, b, self.batched)
        factors = tuple(times(f, scale ** (1 / len(factors))) for f in factors)
        a, b = times(a, scale), times(b, 1 / scale)
        new = [
            self._moved_factor(factor, smooth, unfolding(a, i), unfolding(b, i), rate)
            for i, (factor, smooth) in enumerate(zip(factors, q.smoothness, strict=True))
        ]
        return KroneckerElement(*(tuple(part) for part in zip(*new, strict=True)))

    def _balanced(self, factors: tuple[jax.Array, ...], key: jax.Array) -> tuple[jax.Array, ...]:
        if len(factors) == 1 or is_neutral(self.balance_probability):
            return factors
        sizes = [maximum_over(jnp.abs(f), tuple(range(1, f.ndim))) for f in factors]
        mean = jnp.exp(sum(map(jnp.log, sizes)) / len(sizes))
        now = draws.uniform(key, ()) < self.balance_probability
        return tuple(
            f * jnp.where(now, mean / size, 1).reshape(-1, *[1] * (f.ndim - 1))
            for f, size in zip(factors, sizes, strict=True)
        )

    def _moved_factor(
        self, q: jax.Array, smooth: jax.Array, a: jax.Array, b: jax.Array, rate: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if q.ndim == 2:
            one, two = jnp.sum(a * a, axis=2), jnp.sum(b * b, axis=2)
            difference, size = one - two, lambda x: maximum_over(jnp.abs(x), 1)
        else:
            one, two = (multiply(x, jnp.swapaxes(x, 1, 2)) for x in (a, b))
            difference, size = jnp.triu(one - two), norm_lower_bound
        if self.normalizer == "2nd":
            bound = size(one + two)
            smooth = jnp.maximum(0.9 * smooth + 0.1 * bound, bound)
            bound = smooth
        else:
            bound = size(difference)
        step = smooth_quotient(rate, bound + tiny_of(q)).reshape(-1, *[1] * (q.ndim - 1))
        change = difference * q if q.ndim == 2 else multiply(difference, q)
        return q - step * change, smooth

    def applied(self, q: KroneckerElement, x: jax.Array) -> jax.Array:
        """x multiplied along every dimension by Q_i^T Q_i."""
        transposed = tuple(f if f.ndim == 2 else jnp.swapaxes(f, 1, 2) for f in q.factors)
        return along_modes(along_modes(x, q.factors), transposed)


def _solved_transposed(stack: jax.Array, factor: jax.Array, axis: int) -> jax.Array:
    """The stacked tensors multiplied along one dimension by the factor's inverse transpose."""
    if factor.ndim == 2:
        return mode_product(stack, 1 / factor, axis)
    moved = jnp.moveaxis(stack, axis + 1, 1)
    rows = moved.reshape(*moved.shape[:2], -1)
    solved = linalg.solve_triangular(factor, rows, trans="T")
    return jnp.moveaxis(solved.reshape(moved.shape), 1, axis + 1)
