"""The full Hessian of a small model, its spectrum, and systems with it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ..closures.checks import LossFunction, scalar_closure
from ..control.periods import when
from ..notation import linalg
from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.context import Context
from ..notation.functions import lift, lift_tree
from ..notation.hyperparameters import Hyperparameter, Period
from ..notation.signal import Signal
from ..notation.steps import step_count, tap
from ..notation.values import Leaves, is_missing, working
from ..trees.vector import flat_dtype, flat_size, from_vector, one_leaf, to_vector
from .dual import matmul
from .safeguards import all_finite


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and eigenvectors of a symmetric matrix.

    Attributes:
      values: (d,), ascending; all infinite if the matrix was not finite.
      vectors: (d, d), the eigenvectors in columns; the largest entry of each is positive.
    """

    values: jax.Array
    vectors: jax.Array


@checked()
def dense_hessian(value_fn: Signal, params: Signal, like: Signal) -> Signal:
    """The Hessian of the loss in all entries of a tree, as a (d, d) leaf in flattened order.

    A function of signals.

    By forward-over-reverse differentiation: d Hessian-vector products at once.

    Args:
      value_fn: the input of that name: params -> scalar loss.
      params: the input `params`.
      like: a tree signal; the derivatives are in the leaves that it has.
    """
    return _hessian(value_fn, params, like)


def _hessian_of(context: Context, value_fn: LossFunction, params: Leaves, like: Leaves) -> Leaves:
    at = context.whole
    assert at is not None
    scalar_closure(value_fn, at.tree(), context.label)
    wanted = like.map(lambda _, param: param, at)

    def loss(vector: jax.Array) -> jax.Array:
        return value_fn(replaced(at, from_vector(vector, wanted)).tree())

    start = to_vector(wanted.map(working))
    size = start.shape[0]
    hessian = jax.hessian(loss)(start) if size else jnp.zeros((0, 0), start.dtype)
    return one_leaf((hessian + hessian.T) / 2)


def replaced(leaves: Leaves, new: Leaves) -> Leaves:
    """The leaves, with those that `new` has in their place."""
    pairs = zip(leaves.values, new.values, strict=True)
    return Leaves((old if is_missing(x) else x for old, x in pairs), leaves.treedef)


def _square_of(
    context: Context, value_fn: LossFunction | None, params: Leaves, like: Leaves
) -> Leaves:
    size = flat_size(like)
    return one_leaf(jax.ShapeDtypeStruct((size, size), flat_dtype(like)))


_hessian = lift_tree(_hessian_of, "dense_hessian", context=True, out=_square_of)


def decomposed(matrix: jax.Array) -> Spectrum:
    """The spectrum of a symmetric matrix; all eigenvalues infinite if it is not finite."""
    finite = jnp.all(jnp.isfinite(matrix))
    if not matrix.size:
        return Spectrum(jnp.zeros(0, matrix.dtype), matrix)
    values, vectors = linalg.eigh(jnp.where(finite, matrix, 0))
    at = jnp.argmax(jnp.abs(vectors), axis=0, keepdims=True)
    largest = jnp.take_along_axis(vectors, at, axis=0)
    vectors = vectors * jnp.where(largest < 0, -1, 1).astype(vectors.dtype)
    return Spectrum(jnp.where(finite, values, jnp.inf), vectors)


def _spectrum_shape(context: Context, matrices: Leaves) -> Leaves:
    def shape(matrix: jax.ShapeDtypeStruct) -> Spectrum:
        return jax.eval_shape(lambda x: Spectrum(jnp.zeros(x.shape[:1], x.dtype), x), matrix)

    return matrices.map(shape)


spectrum = lift_tree(
    lambda tree: tree.map(decomposed),
    "spectrum",
    out=_spectrum_shape,
    doc="The `Spectrum` of a symmetric matrix.",
)


@transformation()
def hessian_spectrum(update_interval: Period | None = None) -> Flow:
    """The spectrum of the full Hessian at the params, taken anew each k-th step and held.

    A transformation to send signals through.

    It costs d Hessian-vector products and a decomposition of O(d^3), and keeps d^2 + d numbers.
    A Hessian that is not finite becomes one of infinite eigenvalues: no step is then taken.

    Args:
      update_interval: k; default the number of parameters.
    """

    def snapshot(g: Signal, params: Signal, value_fn: Signal) -> Signal:
        return spectrum(dense_hessian(value_fn, params, g))

    def step(g: Signal) -> Signal:
        due = _due(g, step_count(), update_interval=update_interval)
        held = g >> when(due, flow(snapshot, name="hessian"))
        tap("curvature_is_finite", all_finite(lift(lambda s: s.values, "values")(held)))
        return held

    return flow(step)


def _is_due(tree: Leaves, t: jax.Array, update_interval: int | None) -> jax.Array:
    most = int(jnp.iinfo(t.dtype).max)  # the count never gets beyond it
    period = min(max(flat_size(tree), 1), most) if update_interval is None else update_interval
    return (t - 1) % period == 0


_due = lift_tree(_is_due, "due")


@checked()
def shifted_solve(of: Signal, shift: Hyperparameter, vector: Signal) -> Signal:
    """(A + shift I)^{-1} vector, given the spectrum of A.

    A function of signals.

    Directions in which A + shift I is zero up to rounding are left out (pseudo-inverse).

    Args:
      of: a leaf that is a `Spectrum`.
      shift: scalar signal or number.
      vector: a signal with one leaf.
    """
    return _solve(of, shift, vector)


def _solved(of: Spectrum, shift: float | jax.Array, vector: jax.Array) -> jax.Array:
    inner = divided(matmul(of.vectors.T, vector), of.values + shift, rounding(of))
    return matmul(of.vectors, inner)


def rounding(of: Spectrum) -> jax.Array:
    """The size below which an eigenvalue is rounding."""
    largest = jnp.max(jnp.abs(of.values), initial=0.0)
    return of.values.size * jnp.finfo(of.values.dtype).eps * largest


def divided(numerator: float | jax.Array, denominator: jax.Array, cutoff: jax.Array) -> jax.Array:
    """numerator / denominator, and 0 where the denominator is at most `cutoff`, or not finite."""
    usable = (jnp.abs(denominator) > cutoff) & jnp.isfinite(denominator)
    return jnp.where(usable, numerator / jnp.where(usable, denominator, 1), 0)


_solve = lift(_solved, "shifted_solve")
