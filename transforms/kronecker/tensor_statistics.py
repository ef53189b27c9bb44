"""Kronecker-factored statistics of stacked tensors, their inverse roots, and grafting."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.context import Context
from ..notation.domains import Interval
from ..notation.functions import lift, lift_tree
from ..notation.hyperparameters import Fraction, NonNegative, Size
from ..notation.roots import magnitude, norm, power_of_two_below, saturated, summable
from ..notation.sides import by_side
from ..notation.signal import Signal
from ..notation.steps import delay, step_count
from ..notation.values import Leaves
from ..workers.axis import require_axis
from .cache_chunks import by_cache_chunks
from .grouped import solve_grouped
from .identities import identity_like
from .matrix_roots import ROOT_SOLVERS, RootSolver, Solver
from .spreading import shared_like, spread_batch

RESIDUAL_LIMIT = 0.1


def as_tensors(stack: jax.Array) -> jax.Array:
    """A stack of scalars as one of vectors of length one; others as they are."""
    return stack[:, None] if stack.ndim == 1 else stack


def unfolding(stack: jax.Array, axis: int) -> jax.Array:
    """(batch, n_axis, rest): the matrices whose rows belong to one dimension of the tensors."""
    moved = jnp.moveaxis(stack, axis + 1, 1)
    return moved.reshape(*moved.shape[:2], -1)


def mode_product(stack: jax.Array, factor: jax.Array, axis: int) -> jax.Array:
    """Multiplies one dimension of stacked tensors by a matrix each, or by a diagonal.

    A function of arrays.

    Args:
      stack: (batch, n_1, ..., n_k).
      factor: (batch, n, n), or (batch, n) for diagonals.
      axis: which dimension, from 0.
    """
    if factor.ndim == 2:
        shape = [1] * stack.ndim
        shape[0], shape[axis + 1] = factor.shape
        return stack * factor.reshape(shape)
    if axis + 2 == stack.ndim:
        return _contracted(stack, factor, ([axis + 1], [2]))
    return jnp.moveaxis(_contracted(factor, stack, ([2], [axis + 1])), 1, axis + 1)


def _contracted(a: jax.Array, b: jax.Array, axes: tuple[list[int], list[int]]) -> jax.Array:
    batched = (axes, ([0], [0]))
    return jax.lax.dot_general(a, b, batched, precision=jax.lax.Precision.HIGHEST)


def along_modes(stack: jax.Array, factors: tuple[jax.Array | None, ...]) -> jax.Array:
    """The stacked tensors multiplied along every dimension by its factor, if it has one."""
    product = as_tensors(stack)
    product = summable(product, math.prod(product.shape[1:]))
    for axis, factor in enumerate(factors):
        product = product if factor is None else mode_product(product, factor, axis)
    return product.reshape(stack.shape)


@checked()
def mode_products(stacked: Signal, factors: Signal, *, transposed: bool = False) -> Signal:
    """The stacked tensors multiplied along every dimension by a matrix: of matrices, L X R^T.

    A function of arrays.

    A function of signals.

    Args:
      stacked: a signal of stacks; see `stack_same_shapes`.
      factors: at every stack a tuple with one stack of matrices for each dimension, or None for
        dimensions that are left; see `kronecker_factors`.
      transposed: multiply by the transposed matrices: L^T X R.
    """

    def multiplied(x: jax.Array, matrices: tuple[jax.Array | None, ...]) -> jax.Array:
        return along_modes(x, by_side(_transposed)(matrices) if transposed else matrices)

    return lift(multiplied, "mode_products")(stacked, factors)


def _transposed(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2).conj()


@checked()
def kronecker_factors(
    stacked: Signal, max_dim: int | None = None, *, least_order: int = 1
) -> Signal:
    """One symmetric matrix per dimension of every stacked tensor: of matrices, (G G^T, G^T G) / c.

    A function of signals.

    c is the number of entries of a tensor, rounded up to a power of two: these are means, which are
    numbers of the format wherever the squares of the entries are. A tensor with no entry above
    1e-15 counts as one multiplied by the power of two that brings it there, for its factors would
    be 0, and have no eigenvectors. Arithmetic, `ema` and what is made of these treat the factors
    side by side; see `pair`.

    Args:
      stacked: a signal of stacks; see `stack_same_shapes`.
      max_dim: larger dimensions have None for a factor.
      least_order: tensors of fewer dimensions have no factors; a scalar has the order 0, or with
        1 here that of a vector of length one.
    """

    def factors(stack: jax.Array) -> tuple[jax.Array | None, ...]:
        if stack.ndim - 1 < least_order and least_order > 1:
            return ()
        tensors = as_tensors(stack)
        small = (max_dim is None or n <= max_dim for n in tensors.shape[1:])
        weight = _weight_of_short(tensors)
        return tuple(
            _gram(tensors, axis, weight=weight) if fits else None for axis, fits in enumerate(small)
        )

    return lift(factors, "kronecker_factors")(stacked)


SHORT = 2.0**-50
"""The largest entry of a tensor from which on its factors count as they are."""


def _weight_of_short(tensors: jax.Array) -> jax.Array:
    """What brings squares of shorter tensors to those of `SHORT`; one number for each."""
    size = magnitude(tensors, tuple(range(1, tensors.ndim)))
    ratio = jnp.clip(SHORT / power_of_two_below(size), 1, 1 / SHORT)
    return (ratio**2).astype(tensors.dtype)


def entries_of(shape: Sequence[int]) -> int:
    """The number of entries of a tensor, rounded up to a power of two."""
    return 1 << (math.prod(shape) - 1).bit_length()


def _gram(
    stack: jax.Array, axis: int, diagonal: bool = False, weight: float | jax.Array = 1.0
) -> jax.Array:
    """G_(i) G_(i)^H of stacked tensors over the number of their entries, or its diagonal."""
    others = [other for other in range(1, stack.ndim) if other != axis + 1]
    share = stack * (weight / entries_of(stack.shape[1:]))
    if diagonal:
        return jnp.sum((share * stack.conj()).real, axis=others)
    return _numbers(_contracted(share, stack.conj(), (others, others)))


def _numbers(grams: jax.Array) -> jax.Array:
    """Gram matrices in which no products that cancel have become NaN by overflowing both ways.

    What is NaN in truth is NaN on the diagonal, too, where nothing cancels.
    """
    known = ~jnp.isnan(jnp.diagonal(grams, axis1=1, axis2=2).real)
    overflown = jnp.isnan(grams) & known[:, :, None] & known[:, None, :]
    return jnp.where(overflown, 0, grams)


@checked()
def bounded_or_zero(signal: Signal) -> tuple[Signal, Signal]:
    """Stacks, whose elements are set to zero where their mean square is not finite; how many are.

    A function of signals.

    Args:
      signal: a signal of stacks.
    """

    def squares(x: jax.Array) -> jax.Array:
        share = x / entries_of(x.shape[1:])
        return jnp.sum((share * x.conj()).real, range(1, x.ndim), keepdims=True)

    fine = lift(lambda x: jnp.isfinite(squares(x)), "is_bounded")(signal)
    kept = lift(lambda ok, x: jnp.where(ok, x, 0), "bounded_or_zero")(fine, signal)
    return kept, lift_tree(_count_false, "count_unbounded", out=_counter)(fine)


@checked()
def finite_or_zero(signal: Signal) -> tuple[Signal, Signal]:
    """The leaves of a signal, those that hold a NaN or an infinity set to zero; and their number.

    A function of signals.

    Args:
      signal: a tree signal.
    """
    fine = lift(lambda x: jnp.all(jnp.isfinite(x)), "is_finite")(signal)
    kept = lift(lambda ok, x: jnp.where(ok, x, 0), "finite_or_zero")(fine, signal)
    return kept, lift_tree(_count_false, "count_nonfinite", out=_counter)(fine)


def _counter(context: Context, *_: object) -> Any:
    return jax.ShapeDtypeStruct((), jnp.int32)


def _count_false(flags: Leaves) -> Any:
    counts = (jnp.sum(~flag, dtype=jnp.int32) for flag in flags.present())
    return sum(counts, jnp.zeros((), jnp.int32))


@transformation()
def kronecker_statistics(b2: Fraction = 1.0, max_dim: Size | None = None) -> Flow:
    """One symmetric factor per dimension of every stacked tensor, summed or averaged over time.

    A transformation to send signals through.

        L_i <- b2 L_i + w G_(i) G_(i)^T / c,    w = 1 if b2 = 1 else 1 - b2

    G_(i) is the unfolding along dimension i, and c the number of entries of a tensor, rounded up to
    a power of two: means are numbers of the format wherever the squares of the entries are.

    Args:
      b2: decay; 1 for a plain sum.
      max_dim: dimensions larger than that keep the diagonal only.
    """

    def step(g: Signal) -> Signal:
        fresh = lift(lambda x: _grams(x, max_dim), "grams")(g)
        past = delay(fresh)
        return past << lift(_accumulated, "accumulate")(past, fresh, b2)

    return flow(step)


def _grams(stack: jax.Array, max_dim: int | None) -> tuple[jax.Array, ...]:
    tensors = as_tensors(stack)
    sizes = tensors.shape[1:]
    return tuple(
        _gram(tensors, axis, max_dim is not None and n > max_dim) for axis, n in enumerate(sizes)
    )


def _accumulated(
    past: tuple[jax.Array, ...], fresh: tuple[jax.Array, ...], b2: float | jax.Array
) -> tuple[jax.Array, ...]:
    def accumulate(old: jax.Array, gram: jax.Array) -> jax.Array:
        decay = jnp.asarray(b2, old.real.dtype)
        return decay * old + jnp.where(decay < 1, 1 - decay, 1) * gram

    return jax.tree.map(accumulate, past, fresh)


class Roots(NamedTuple):
    """Inverse roots of the factors of one stack.

    Attributes:
      factors: one per dimension, like the statistics.
      failed: for each, which elements of the batch kept their previous root at the last refresh.
    """

    factors: tuple[jax.Array, ...]
    failed: tuple[jax.Array, ...]


Exponent = Annotated[float | jax.Array | Callable[[int], float], Interval(-math.inf, math.inf)]
"""The power of a root: a number, or a function of the number of dimensions."""


@transformation()
def inverse_roots(
    eps: NonNegative,
    exponent: Exponent | None = None,
    solver: RootSolver | Solver = "eigh",
    b2: Fraction | None = None,
    axis_name: str | None = None,
) -> Flow:
    """(c L_i / d + eps I)^exponent of the factors of `kronecker_statistics`, as `Roots`.

    A transformation to send signals through.

    c is the number of entries by which the factors are divided; what the solver sees is divided by
    it, too, eps included.

    All factors of one size and exponent go through one batched call, whichever stacks they come
    from. A root whose residual is not below one tenth is replaced by the one
    before it; the first one is then the identity. `failed_roots` counts these.

    Args:
      eps: added to the spectrum.
      exponent: default -1/(2k) for a tensor with k dimensions; a number, or a function of k.
      solver: a name in `ROOT_SOLVERS`, or a function of that kind.
      b2: decay of averages whose zero start is to be corrected by d = 1 - b2^t; None or 1: d = 1.
      axis_name: mesh axis over which the work is spread inside `jax.shard_map`.

    References:
      Gupta, Koren & Singer 2018, Shampoo: Preconditioned Stochastic Tensor Optimization.
    """
    if isinstance(solver, str):
        solver = ROOT_SOLVERS[solver]

    def step(factors: Signal) -> Signal:
        past = delay(lift(_unsolved, "roots")(factors), _identities)

        def solved(
            context: Context,
            statistics: Leaves,
            past: Leaves,
            t: jax.Array,
            eps: float | jax.Array,
            decay: float | jax.Array,
        ) -> Leaves:
            require_axis(context.label, axis_name)
            correction = 1.0 if b2 is None else _correction(decay, context.step)
            return _solved(statistics, past, eps, exponent, solver, correction, axis_name)

        solved.of_any = solved  # type: ignore[attr-defined]
        solve = lift_tree(solved, "inverse_roots", context=True, out=1)
        return past << solve(factors, past, step_count(), eps, 1.0 if b2 is None else b2)

    return flow(step)


def _unsolved(factors: tuple[jax.Array, ...]) -> Roots:
    flags = (shared_like(jnp.zeros(len(factor), jnp.bool_), factor) for factor in factors)
    return Roots(tuple(factors), tuple(flags))


def _identities(roots: Roots) -> Roots:
    return roots._replace(factors=tuple(map(_identity, roots.factors)))


def _identity(factor: jax.Array) -> jax.Array:
    return jnp.ones_like(factor) if factor.ndim == 2 else identity_like(factor)


def _correction(b2: float | jax.Array, t: jax.Array) -> jax.Array:
    decay = jnp.asarray(b2) * 1.0
    return jnp.where(decay < 1, -jnp.expm1(jnp.asarray(t, decay.dtype) * jnp.log(decay)), 1.0)


def _exponent_of(exponent: Any, order: int) -> float:
    if exponent is None:
        return -1 / (2 * order)
    return exponent(order) if callable(exponent) else exponent


def _solved(
    statistics: Leaves,
    past: Leaves,
    eps: float | jax.Array,
    exponent: Any,
    solver: Solver,
    correction: float | jax.Array,
    axis_name: str | None,
) -> Leaves:
    orders = [len(factors) for factors in statistics.values for _ in factors]
    depends = exponent is None or callable(exponent)
    entries = [_entries(leaf) for leaf in statistics.values for _ in leaf]
    factors = [factor for leaf in statistics.values for factor in leaf]
    old = [factor for leaf in past.values for factor in leaf.factors]
    flags = [flag for leaf in past.values for flag in leaf.failed]
    kinds = [
        (*factor.shape[1:], order if depends else 0, factor.dtype)
        for factor, order in zip(factors, orders, strict=True)
    ]

    most = {
        kind: max(n for n, k in zip(entries, kinds, strict=True) if k == kind) for kind in kinds
    }
    shares = [n / most[kind] for n, kind in zip(entries, kinds, strict=True)]
    factors = [x if share == 1 else share * x for x, share in zip(factors, shares, strict=True)]

    def solve(
        kind: tuple[Any, ...], batch: jax.Array, *old: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        power = _exponent_of(exponent, kind[-2])
        ridge, size = jnp.asarray(eps) / most[kind], most[kind] ** power

        def one(pair: tuple[tuple[jax.Array, ...], jax.Array]) -> tuple[jax.Array, jax.Array]:
            (before, _), batch = pair
            batch = batch / jnp.asarray(correction, batch.real.dtype)
            if batch.ndim == 2:
                roots = (batch + jnp.asarray(ridge, batch.dtype)) ** power
                residuals = 0 * jnp.sum(roots, axis=1)
            else:
                bound = _bound(solver, power)
                roots, residuals = spread_batch(bound, batch, ridge, axis_name=axis_name)
            roots = roots * jnp.asarray(size, roots.real.dtype)
            fine = residuals <= RESIDUAL_LIMIT
            shape = (-1, *[1] * (roots.ndim - 1))
            return jnp.where(fine.reshape(shape), roots, saturated(before)), ~fine

        found: tuple[jax.Array, jax.Array]
        found = (one if axis_name is not None else by_cache_chunks(one))((old, batch))
        return found

    found = iter(solve_grouped(solve, kinds, factors, old, flags))
    values = []
    for leaf in statistics.values:
        roots, failed = zip(*(next(found) for _ in leaf), strict=True)
        values.append(Roots(roots, failed))
    return Leaves(values, past.treedef)


def _entries(factors: tuple[jax.Array, ...]) -> int:
    """Those of a tensor, which `kronecker_statistics` divides by."""
    return entries_of([factor.shape[1] for factor in factors])


def _bound(solver: Solver, power: float) -> Callable[..., Any]:
    return lambda batch, eps: solver(batch, eps, power)


@checked()
def failed_roots(roots: Signal) -> Signal:
    """How many factors kept their previous root at the last refresh, as a scalar signal.

    A function of signals.
    """

    def count(tree: Leaves) -> Any:
        flags = [jnp.sum(flag, dtype=jnp.int32) for leaf in tree.values for flag in leaf.failed]
        return sum(flags, jnp.zeros((), jnp.int32))

    return lift_tree(count, "failed_roots", out=_counter)(roots)


@checked()
def precondition(stacked: Signal, roots: Signal) -> Signal:
    """The stacked tensors multiplied along every dimension by its root.

    A function of signals.

    Args:
      stacked: a signal like the one that `kronecker_statistics` was given.
      roots: what `inverse_roots` gives.
    """
    return lift(lambda x, root: along_modes(x, root.factors), "precondition")(stacked, roots)


@checked()
def graft(
    magnitude: Signal, direction: Signal, eps: NonNegative = 1e-16, stacked: bool = False
) -> Signal:
    """The direction of one signal with the norm of another: D |M| / (|D| + eps).

    A function of signals.

    Args:
      magnitude: M, whose norms are taken leaf by leaf.
      direction: D.
      eps: keeps a direction of norm zero from dividing by zero.
      stacked: the norms are those of the elements of stacks.

    References:
      Agarwal et al. 2020, Disentangling Adaptive Gradient Methods from Learning Rates.
    """

    def grafted(m: jax.Array, d: jax.Array, eps: float | jax.Array) -> jax.Array:
        axes = tuple(range(1 if stacked else 0, m.ndim))
        length = norm(d, axes, keepdims=True) + eps
        empty = length == 0
        return d * (norm(m, axes, keepdims=True) / jnp.where(empty, 1, length))

    return lift(grafted, "graft")(magnitude, direction, eps)
