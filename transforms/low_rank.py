"""Low-rank bases of matrix gradients, and the projection onto them and back."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .notation.build import Flow, flow
from .notation.checks import check_choice, transformation
from .notation.functions import lift
from .notation.signal import Signal

SIDES = ("std", "reverse_std", "left", "right", "full")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Basis:
    """Orthonormal bases of the column space (left) and row space (right) of a matrix leaf.

    Attributes:
      left: (m, r) with orthonormal columns, or None if the columns are not projected.
      right: (r, n) with orthonormal rows, or None if the rows are not projected.
    """

    left: Any
    right: Any


@transformation()
def svd_basis(rank: int, projection: str = "std") -> Flow:
    """The leading singular vectors of each matrix that comes in.

    Signs are fixed: the entry of largest magnitude in each vector is positive.

    Args:
      rank: how many vectors, at most the smaller dimension.
      projection: "std" projects the longer side away (rows kept where m >= n), "reverse_std" the
        other, "left" and "right" force a side, "full" uses both.

    References:
      Zhao et al. 2024, GaLore.
    """
    check_choice("svd_basis", "projection", projection, SIDES)
    return flow(lambda g: lift(lambda x: _leading(x, rank, projection), "svd_basis")(g))


def _leading(matrix: Any, rank: int, projection: str) -> Basis:
    left, right = _sides(matrix.shape, projection)
    u, _, vt = jnp.linalg.svd(matrix, full_matrices=False)
    return Basis(
        _signed(u[:, :rank].T).T if left else None,
        _signed(vt[:rank]) if right else None,
    )


def _sides(shape: tuple[int, int], projection: str) -> tuple[bool, bool]:
    tall = shape[0] >= shape[1]
    right = {"std": tall, "reverse_std": not tall, "left": False, "right": True, "full": True}
    return projection == "full" or not right[projection], right[projection]


def _signed(rows: Any) -> Any:
    """Every row with the sign that makes its entry of largest magnitude positive."""
    largest = jnp.take_along_axis(rows, jnp.argmax(jnp.abs(rows), axis=1, keepdims=True), axis=1)
    return rows * jnp.where(largest < 0, -1, 1).astype(rows.dtype)


def _project(basis: Basis, matrix: Any) -> Any:
    if basis.left is not None:
        matrix = basis.left.T @ matrix
    return matrix if basis.right is None else matrix @ basis.right.T


def _unproject(basis: Basis, low: Any) -> Any:
    if basis.left is not None:
        low = basis.left @ low
    return low if basis.right is None else low @ basis.right


def project(basis: Signal, g: Signal) -> Signal:
    """The coordinates of a matrix in a basis: left^T G right^T, sides that exist only."""
    return lift(_project, "project")(basis, g)


def unproject(basis: Signal, low: Signal) -> Signal:
    """The matrix with these coordinates: left L right."""
    return lift(_unproject, "unproject")(basis, low)
