"""Square matrices of a structure that is closed under products: what SINGD keeps its factors in.

Each structure is a pytree with the operations of a vector space (`+`, `-`, times a scalar), the
product `@`, and

    identity(n, like)   the identity
    gram(Y)             the projection of Y^T Y
    dense()             the matrix itself

The projection takes a symmetric matrix to the tangent space of the structure: of a triangular one
it doubles what is off the diagonal. All arrays may have leading axes in common.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, make_dataclass
from functools import cache
from typing import Any, Self, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from ....transforms import FlowError
from ....transforms.kronecker.identities import diagonal_matrices
from ....transforms.notation.roots import maximum_over


class Structured(ABC):
    """What all structures share."""

    @abstractmethod
    def dense(self) -> Any:
        """The matrix itself."""

    @classmethod
    @abstractmethod
    def gram(cls, rows: jax.Array) -> Self:
        """The projection of Y^T Y, for the matrix Y of these rows."""

    @classmethod
    def identity(cls, size: int, like: jax.Array) -> Self:
        """The identity of this size, with the leading axes and the dtype of the rows `like`."""
        shape = (*like.shape[:-2], size, size)
        return cls.gram(jnp.broadcast_to(jnp.eye(size, dtype=like.dtype), shape))

    def __add__(self, other: Self) -> Self:
        total: Self = jax.tree.map(jnp.add, self, other)
        return total

    def __sub__(self, other: Self) -> Self:
        rest: Self = jax.tree.map(jnp.subtract, self, other)
        return rest

    def __mul__(self, scalar: float | jax.Array) -> Self:
        """Times a number, or one per leading index, of shape (..., 1, 1)."""
        scaled: Self = jax.tree.map(lambda x: _aligned(scalar, x, self) * x, self)
        return scaled

    __rmul__ = __mul__

    def own_gram(self) -> "Structured":
        """The projection of K^T K."""
        return self.gram(self.dense())

    def transform(self, rows: jax.Array) -> jax.Array:
        """Y K."""
        return rows @ self.dense()

    def square_times(self, x: jax.Array) -> jax.Array:
        """K K^T X."""
        dense = self.dense()
        return dense @ (jnp.swapaxes(dense, -1, -2) @ x)

    def mean_diagonal(self) -> jax.Array:
        """The trace over the size, of shape (..., 1, 1)."""
        diagonal = jnp.diagonal(self.dense(), axis1=-2, axis2=-1)
        return diagonal.mean(axis=-1)[..., None, None]

    def largest(self) -> Any:
        """The largest magnitude of an entry, of shape (..., 1, 1)."""
        return maximum_over(jnp.abs(self.dense()), (-2, -1), keepdims=True)


def _aligned(scalar: Any, array: jax.Array, owner: Structured) -> jax.Array:
    """A scalar of shape (..., 1, 1) with as many trailing ones as the array has axes of its own."""
    if jnp.ndim(scalar) == 0:
        return scalar
    lead = scalar.shape[:-2]
    return scalar.reshape(lead + (1,) * (array.ndim - len(lead)))


T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def _structure(cls: type[T]) -> type[T]:
    made: Any = dataclass(frozen=True)(cls)
    names = [field.name for field in fields(made)]
    return jax.tree_util.register_dataclass(made, data_fields=names, meta_fields=[])


@_structure
class Dense(Structured):
    """Any matrix."""

    matrix: jax.Array

    def dense(self) -> jax.Array:
        """The matrix itself."""
        return self.matrix

    @classmethod
    def gram(cls, rows: jax.Array) -> "Dense":
        """Y^T Y."""
        return cls(jnp.swapaxes(rows, -1, -2) @ rows)

    def __matmul__(self, other: "Dense") -> "Dense":
        return Dense(self.matrix @ other.matrix)


@_structure
class Diagonal(Structured):
    """A diagonal matrix, as the vector of its diagonal."""

    diagonal: Any

    def dense(self) -> Any:
        """The matrix itself."""
        return diagonal_matrices(self.diagonal)

    @classmethod
    def gram(cls, rows: jax.Array) -> "Diagonal":
        """The diagonal of Y^T Y."""
        return cls(jnp.sum(rows * rows, axis=-2))

    def __matmul__(self, other: "Diagonal") -> "Diagonal":
        return Diagonal(self.diagonal * other.diagonal)

    def own_gram(self) -> "Diagonal":
        """The square."""
        return Diagonal(self.diagonal**2)

    def transform(self, rows: jax.Array) -> jax.Array:
        """Y K."""
        return rows * self.diagonal[..., None, :]

    def square_times(self, x: jax.Array) -> jax.Array:
        """K K^T X."""
        return self.diagonal[..., :, None] ** 2 * x


def _diagonal_sums(matrix: jax.Array) -> jax.Array:
    """For every distance i from the main diagonal the sum of both diagonals, over their length."""
    size = matrix.shape[-1]
    distance = jnp.abs(jnp.arange(size)[:, None] - jnp.arange(size)).reshape(-1)
    flat = matrix.reshape(*matrix.shape[:-2], -1)
    sums = jnp.zeros((*matrix.shape[:-2], size), matrix.dtype).at[..., distance].add(flat)
    return sums / (size - jnp.arange(size))


def _lower_toeplitz(column: Any) -> Any:
    size = column.shape[-1]
    distance = jnp.arange(size)[:, None] - jnp.arange(size)
    return jnp.where(distance >= 0, column[..., jnp.maximum(distance, 0)], 0)


@_structure
class LowerToeplitz(Structured):
    """A lower-triangular Toeplitz matrix, as its first column."""

    column: Any

    def dense(self) -> Any:
        """The matrix itself."""
        return _lower_toeplitz(self.column)

    @classmethod
    def gram(cls, rows: jax.Array) -> "LowerToeplitz":
        """The means of the diagonals of Y^T Y, doubled off the main one."""
        return cls(_diagonal_sums(jnp.swapaxes(rows, -1, -2) @ rows))

    def __matmul__(self, other: "LowerToeplitz") -> "LowerToeplitz":
        return LowerToeplitz((_lower_toeplitz(self.column) @ other.column[..., None])[..., 0])


@_structure
class UpperToeplitz(Structured):
    """An upper-triangular Toeplitz matrix, as its first row."""

    row: Any

    def dense(self) -> Any:
        """The matrix itself."""
        return jnp.swapaxes(_lower_toeplitz(self.row), -1, -2)

    @classmethod
    def gram(cls, rows: jax.Array) -> "UpperToeplitz":
        """The means of the diagonals of Y^T Y, doubled off the main one."""
        return cls(_diagonal_sums(jnp.swapaxes(rows, -1, -2) @ rows))

    def __matmul__(self, other: "UpperToeplitz") -> "UpperToeplitz":
        return UpperToeplitz((_lower_toeplitz(self.row) @ other.row[..., None])[..., 0])


class _BlockDiagonal(Structured):
    """Dense blocks along the diagonal, the last one smaller where the size asks for it."""

    block: int
    blocks: Any
    last: Any

    def dense(self) -> Any:
        """The matrix itself."""
        count = self.blocks.shape[-3]
        parts = [self.blocks[..., i, :, :] for i in range(count)] + [self.last]
        return _block_diagonal(parts)

    @classmethod
    def gram(cls, rows: jax.Array) -> Any:
        """The blocks of Y^T Y."""
        count = rows.shape[-1] // cls.block
        head, tail = rows[..., : count * cls.block], rows[..., count * cls.block :]
        head = head.reshape(*head.shape[:-1], count, cls.block)
        make: Any = cls
        return make(
            jnp.einsum("...nbi,...nbj->...bij", head, head), jnp.swapaxes(tail, -1, -2) @ tail
        )

    def __matmul__(self, other: Any) -> Any:
        make: Any = type(self)
        return make(self.blocks @ other.blocks, self.last @ other.last)


def _block_diagonal(parts: list[Any]) -> Any:
    size = sum(part.shape[-1] for part in parts)
    rows, offset = [], 0
    for part in parts:
        width = part.shape[-1]
        pad = [(0, 0)] * (part.ndim - 1) + [(offset, size - offset - width)]
        rows.append(jnp.pad(part, pad))
        offset += width
    return jnp.concatenate(rows, axis=-2)


class _Hierarchical(Structured):
    """Dense corners around a diagonal: [[A, B], [0, C, 0], [0, D, E]]."""

    first: int
    second: int
    a: Any
    b: Any
    c: Any
    d: Any
    e: Any

    @classmethod
    def sizes(cls, size: int) -> tuple[int, int, int]:
        """Sizes of A, C and E: first A is filled, then E, then the diagonal."""
        a = min(size, cls.first)
        e = min(size - a, cls.second)
        return a, size - a - e, e

    def dense(self) -> Any:
        """The matrix itself."""
        lower = jnp.concatenate([diagonal_matrices(self.c), self.d], axis=-2)
        right = jnp.concatenate([jnp.zeros_like(self.d).swapaxes(-1, -2), self.e], axis=-2)
        corner = jnp.concatenate([lower, right], axis=-1)
        left = jnp.concatenate([self.a, jnp.zeros_like(self.b).swapaxes(-1, -2)], axis=-2)
        return jnp.concatenate([left, jnp.concatenate([self.b, corner], axis=-2)], axis=-1)

    @classmethod
    def gram(cls, rows: jax.Array) -> Any:
        """The entries of Y^T Y that the structure has, doubled in B and D."""
        a, c, _ = cls.sizes(rows.shape[-1])
        top, middle, bottom = rows[..., :a], rows[..., a : a + c], rows[..., a + c :]

        def product(x: jax.Array, y: jax.Array) -> jax.Array:
            return jnp.swapaxes(x, -1, -2) @ y

        make: Any = cls
        return make(
            product(top, top),
            2 * product(top, rows[..., a:]),
            jnp.sum(middle * middle, axis=-2),
            2 * product(bottom, middle),
            product(bottom, bottom),
        )

    def __matmul__(self, other: Any) -> Any:
        middle = self.c.shape[-1]
        b1, b2 = other.b[..., :middle], other.b[..., middle:]
        own1, own2 = self.b[..., :middle], self.b[..., middle:]
        column = other.c[..., None, :]
        left = self.a @ b1 + own1 * column + own2 @ other.d
        make: Any = type(self)
        return make(
            self.a @ other.a,
            jnp.concatenate([left, self.a @ b2 + own2 @ other.e], axis=-1),
            self.c * other.c,
            self.d * column + self.e @ other.d,
            self.e @ other.e,
        )


FIXED: dict[str, Any] = {
    "dense": Dense,
    "diagonal": Diagonal,
    "triltoeplitz": LowerToeplitz,
    "triutoeplitz": UpperToeplitz,
}
STRUCTURES = (*FIXED, "block<size>diagonal", "hierarchical<first>_<second>")


@cache
def structure_named(name: str) -> Any:
    """The structure of that name.

    Args:
      name: "dense", "diagonal", "triltoeplitz", "triutoeplitz", "block30diagonal" (blocks of 30,
        or any other size), or "hierarchical15_15" (dense corners of 15 and 15, or other sizes).
    """
    if name in FIXED:
        return FIXED[name]
    if found := re.fullmatch(r"block(\d+)diagonal", name):
        return _sized(name, _BlockDiagonal, {"block": int(found[1])}, ("blocks", "last"))
    if found := re.fullmatch(r"hierarchical(\d+)_(\d+)", name):
        sizes = {"first": int(found[1]), "second": int(found[2])}
        return _sized(name, _Hierarchical, sizes, tuple("abcde"))
    raise _unknown(name)


def _unknown(name: str) -> FlowError:
    return FlowError(f"singd: structures={name!r} is not one of {', '.join(map(repr, STRUCTURES))}")


def _sized(name: str, base: Any, sizes: dict[str, int], parts: tuple[str, ...]) -> Any:
    if min(sizes.values()) < 1:
        raise _unknown(name)
    made = make_dataclass(name, [(part, Any) for part in parts], bases=(base,), namespace=sizes)
    register: Callable[..., Any] = jax.tree_util.register_dataclass
    return register(made, data_fields=list(parts), meta_fields=[])
