"""A stack of many tiny arrays as one matrix of them, from which each is cut at a row and a column.

For the CPU, XLA compiles a kernel for every slice of a stack. Slices of one shape at places that
it does not know when compiling share a kernel; but a place for each of hundreds of parts is as
many numbers, which take as long to compile as the slices. A row and a column for each are few.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax

from .known import unseen
from .places import hidden

SLENDER = 3
"""So many times longer than wide a matrix may be, where another one would not be full."""


@dataclass(frozen=True)
class Grid:
    """Where arrays of one shape lie in a matrix, column by column.

    Attributes:
      count: how many there are.
      shape: of each.
    """

    count: int
    shape: tuple[int, ...]

    @property
    def sides(self) -> tuple[int, int]:
        """How many lie below and how many beside one another."""
        near = math.isqrt(self.count - 1) + 1
        full = max(n for n in range(1, near + 1) if self.count % n == 0)
        high = full if SLENDER * full >= near else near
        return high, -(-self.count // high)

    @property
    def tile(self) -> tuple[int, ...]:
        """The shape of each within the matrix."""
        return (1,) * (2 - len(self.shape)) + self.shape

    def places(self) -> tuple[list[jax.Array], list[jax.Array]]:
        """The first row of each, and the first column; what XLA does not know."""
        rows, columns = (
            hidden(tuple(range(0, size * count, size or 1)))
            for size, count in zip(self.tile, self.sides, strict=False)
        )
        return rows, columns

    def matrix(self, stack: jax.Array) -> jax.Array:
        """All arrays beside and below one another, laid out once for all that are cut from it."""
        (high, wide), (rows, columns, *rest) = self.sides, self.tile
        whole = (high * rows, wide * columns, *rest)
        if high * wide > self.count:
            spare = (0, high * wide - self.count, 0)
            stack = jax.lax.pad(stack, stack.dtype.type(0), [spare, *[(0, 0, 0)] * len(self.shape)])

        def laid(stack: jax.Array) -> jax.Array:
            apart = jax.lax.reshape(stack, (wide, high * rows, columns, *rest))
            order = (1, 0, *range(2, apart.ndim))
            return jax.lax.reshape(jax.lax.transpose(apart, order), whole)

        # XLA would lay them out anew in the kernel of each
        return unseen(laid, lambda stack: jax.lax.reshape(stack, whole), stack)

    def cut(
        self, stack: jax.Array, rows: Sequence[jax.Array], columns: Sequence[jax.Array]
    ) -> list[jax.Array]:
        """The arrays of a stack, which begin at these rows and columns."""
        matrix, high = self.matrix(stack), len(rows)
        counts = [min(high, self.count - high * n) for n in range(len(columns))]
        return [
            part
            for column, count in zip(columns, counts, strict=True)
            for part in _of_column(matrix, column, rows[:count], self.tile, self.shape)
        ]


@partial(jax.jit, static_argnums=(3, 4))
def _of_column(
    matrix: jax.Array,
    column: jax.Array,
    rows: Sequence[jax.Array],
    tile: tuple[int, ...],
    shape: tuple[int, ...],
) -> list[jax.Array]:
    return [_part(matrix, (row, column), tile, shape) for row in rows]


def _part(
    matrix: jax.Array,
    place: tuple[jax.Array, jax.Array],
    tile: tuple[int, ...],
    shape: tuple[int, ...],
) -> jax.Array:
    origin: tuple[jax.Array | int, ...] = (*place, *(0,) * (len(tile) - 2))
    part = jax.lax.dynamic_slice(matrix, origin, tile, allow_negative_indices=False)
    return part if tile == shape else jax.lax.reshape(part, shape)
