"""Matrices by their leading singular directions, found by one step of a power iteration a time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from ..notation import draws, linalg
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.crowds import of_stacks
from ..notation.errors import FlowError
from ..notation.functions import lift, where
from ..notation.hyperparameters import Key, Limit, Size
from ..notation.known import choose
from ..notation.mapping import in_batches, map_leaves
from ..notation.packing import choose_leaves
from ..notation.parts import split
from ..notation.roots import norm, summable
from ..notation.selection import leaf_where
from ..notation.sharding import replicated, resharded
from ..notation.signal import Signal
from ..notation.stacks import TINY
from ..notation.steps import delay
from ..notation.values import Leaves, either, is_missing
from ..trees.random import check_key, typed_key
from ..workers import axis
from ..workers.signals import exchanged
from .compressor import sent_whole, shares_of, workers_of

Variant = Literal["alternating", "paper"]

Factors: TypeAlias = list[Sequence[jax.Array]]
"""Of every matrix, or stack of matrices, its left and its right factor."""

Found: TypeAlias = tuple[list[jax.Array], list[jax.Array], Factors]
"""Of every matrix what was sent (in between: what is left of it), the mean, and the factors."""


@checked()
def power_iteration(
    rank: Size = 1,
    num_iters_per_step: Size = 1,
    min_compression_rate: Limit = 2.0,
    variant: Variant = "alternating",
    key: Key = 0,
    init_factors: Mapping[str, optax.Params] | None = None,
) -> "PowerIteration":
    """Sends low-rank factors of matrices, which add up over the workers: an all-reduce.

    A compressor, for `compress` and `compress_with_error_feedback`. A leaf of shape (n, ...) is a
    matrix M with n rows, P and Q are its factors with `rank` columns, the same on all workers and
    kept from step to step. "alternating", in turn from one iteration to the next:

        P <- orth(P),  q_i = M_i^T P,  M_i <- M_i - P q_i^T,  Q <- sum_i q_i,  A <- A + P Q^T / W
        Q <- orth(Q),  p_i = M_i Q,    M_i <- M_i - p_i Q^T,  P <- sum_i p_i,  A <- A + P Q^T / W

    A is what is received, the rest M_i is what the worker did not send. "paper", both each time:

        P <- orth(sum_i M_i Q),  Q <- mean_i M_i^T P,  A = P Q^T

    where A counts as sent by everybody. Leaves that are not worth it are sent in full.

    Args:
      rank: columns of the factors; at most the shorter side of a matrix.
      num_iters_per_step: iterations of "alternating".
      min_compression_rate: "alternating" leaves in full what would shrink by no more than this;
        "paper" compresses every leaf of two axes or more.
      variant: "alternating" or "paper".
      key: seed or key of the first factors, entries of which are standard normal.
      init_factors: {"p": tree, "q": tree} in their place; either may be missing, and None stands at
        leaves that are not compressed.
    """
    if variant not in ("alternating", "paper"):
        raise FlowError(
            f"power_iteration: variant={variant!r} must be one of 'alternating', 'paper'"
        )
    check_key(key)
    return PowerIteration(
        rank, num_iters_per_step, min_compression_rate, variant, key, dict(init_factors or {})
    )


@dataclass(frozen=True)
class PowerIteration:
    """The compressor of `power_iteration`; see there."""

    rank: int
    iterations: int
    min_rate: float
    variant: Variant
    key: Key
    given: Mapping[str, Any]
    name: str = "power_iteration"

    def exchange(
        self, signal: Signal, axis_name: str | None, weights: Any, whole: Signal | None
    ) -> tuple[Signal, Signal]:
        """See `transforms.compression.exchange`."""
        p = self._factor(signal, "p") if self.variant == "alternating" else None
        q = self._factor(signal, "q")
        done = delay(0, name="iterations")

        @of_stacks
        def run(
            context: Context, tree: Leaves, q: Leaves, p: Leaves | None, done: jax.Array, whole: Any
        ) -> Leaves:
            shares = shares_of(context.label, weights, axis_name, context.scalar_dtype)
            p = q if p is None else p

            def all_of_it() -> Any:
                sent = sent_whole(tree, shares, axis_name)
                with_factors = map_leaves(lambda pair, *factors: (*pair, *factors), sent, p, q)
                return either(with_factors, _without_factors(sent))

            def compressed() -> Leaves:
                return self._sent(tree, p, q, done, shares, axis_name)

            return compressed() if whole is None else choose_leaves(whole, all_of_it, compressed)

        def sent(context: Context, tree: Leaves, *_: object) -> float:
            return float(sum(self._bytes(leaf) for leaf in tree.present()))

        made = exchanged(run, self.name, axis_name, sent, workers_of(weights))(
            signal, q, p, done, whole
        )
        q << made[3]
        if p is not None:
            p << made[2]
        further = done + self.iterations
        done << (further if whole is None else where(whole, done, further))
        return made[0], made[1]

    def _factor(self, signal: Signal, side: str) -> Signal:
        def shape(x: jax.Array) -> jax.Array:
            return jnp.zeros(self._sides(x)[side == "q"], x.dtype)

        compressed, _ = split(signal, leaf_where(self._is_compressed))
        like = lift(shape, f"factor_{side}")(compressed)
        return delay(like, self._starting(side), name=side)

    def _starting(self, side: str) -> Any:
        """Normal entries, the same on every worker, or those that were given."""

        def start(like: Leaves) -> Leaves:
            given = self.given.get(side)
            if given is not None:
                at = like.treedef.unflatten(range(len(like)))
                found = jax.tree.map(
                    lambda i, x: None if x is None else jnp.asarray(x, like.values[i].dtype),
                    at, given, is_leaf=lambda x: x is None,
                )  # fmt: skip
                places = like.treedef.flatten_up_to(found)
                return like.map(lambda x, y: x if y is None else y, Leaves(places, like.treedef))
            fresh = draws.fold_in(typed_key(self.key), side == "q")
            keys = iter(draws.split(fresh, max(len(like), 1)))
            drawn = like.map(lambda x: draws.normal(next(keys), x.shape, x.dtype))
            return drawn.map(resharded, like)

        start.of_tree = True  # type: ignore[attr-defined]
        return start

    def _sides(self, x: jax.Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of P and Q."""
        n, m = x.shape[0], math.prod(x.shape[1:])
        rank = min(self.rank, n, m)
        return (n, rank), (m, rank)

    def _is_compressed(self, x: jax.Array | jax.ShapeDtypeStruct) -> bool:
        if x.ndim < 2 or x.size == 0:
            return False
        if self.variant == "paper":
            return True
        factors = 0.5 * self.iterations * min(self.rank, *x.shape) * sum(x.shape)
        return bool(x.size / factors > self.min_rate)

    def _bytes(self, x: jax.Array) -> float:
        if not self._is_compressed(x):
            return x.size * x.dtype.itemsize
        p, q = (math.prod(side) * x.dtype.itemsize for side in self._sides(x))
        return p + q if self.variant == "paper" else self.iterations * (p + q) / 2

    def _sent(
        self,
        tree: Leaves,
        p: Leaves,
        q: Leaves,
        done: jax.Array,
        shares: jax.Array,
        axis_name: str | None,
    ) -> Leaves:
        def is_compressed(i: int) -> bool:
            return not is_missing(tree.held[i]) and self._is_compressed(tree.abstract(i))

        def matrix(x: jax.Array) -> jax.Array:
            return summable(_as_matrix(replicated(x)), x.size)

        def step(rows: list[tuple[jax.Array, ...]]) -> list[tuple[jax.Array, ...]]:
            run = self._alternating if self.variant == "alternating" else self._both
            found = run(
                [x for x, _, _ in rows], [pair for _, *pair in rows], done, share, axis_name
            )
            return [(x, y, *pair) for x, y, pair in zip(*found, strict=True)]

        share = shares[axis.worker_index(axis_name)]
        made = in_batches(step, map_leaves(matrix, tree.only(is_compressed)), p, q)
        others = sent_whole(tree.only(lambda i: not is_compressed(i)), shares, axis_name)
        return either(map_leaves(_quadruple, made, tree, p, q), _without_factors(others))

    def _alternating(
        self,
        matrices: list[jax.Array],
        factors: Factors,
        done: jax.Array,
        share: jax.Array,
        axis_name: str | None,
    ) -> Found:
        means = [jnp.zeros(x.shape, x.dtype) for x in matrices]  # the same on all workers
        left = matrices
        for iteration in range(self.iterations):
            left, means, factors = choose(
                (done + iteration) % 2 == 0,
                lambda now: _half(now, share, axis_name, right=True),
                lambda now: _half(now, share, axis_name, right=False),
                (left, means, factors),
            )
        return [x - rest for x, rest in zip(matrices, left, strict=True)], means, factors

    def _both(
        self,
        matrices: list[jax.Array],
        factors: Factors,
        done: jax.Array,
        share: jax.Array,
        axis_name: str | None,
    ) -> Found:
        firsts = [
            share.astype(_real(x)) * _product(x, q)
            for x, (_, q) in zip(matrices, factors, strict=True)
        ]
        ps = [_gram_schmidt(p) for p in axis.total(firsts, axis_name)]
        seconds = [
            share.astype(_real(x)) * _product(_adjoint(x), p)
            for x, p in zip(matrices, ps, strict=True)
        ]
        qs = axis.total(seconds, axis_name)
        means = [_product(p, _adjoint(q)) for p, q in zip(ps, qs, strict=True)]
        return means, means, list(zip(qs, qs, strict=True))  # P is not kept


def _half(
    now: Found,
    share: jax.Array,
    axis_name: str | None,
    right: bool,
) -> Found:
    """One iteration: the projection on one factor makes the other."""
    left, means, factors = now
    bases = [_orthonormal(pair[not right]) for pair in factors]
    turned = [_adjoint(x) if right else x for x in left]
    parts = [_product(x, basis) for x, basis in zip(turned, bases, strict=True)]
    shared = [share.astype(_real(x)) * x for x in parts]
    sums = axis.total(shared, axis_name)
    count = axis.count_workers(axis_name)

    def outer(basis: jax.Array, part: jax.Array) -> jax.Array:
        return _product(basis, _adjoint(part)) if right else _product(part, _adjoint(basis))

    left = [x - outer(b, y) for x, b, y in zip(left, bases, parts, strict=True)]
    means = [x + outer(b, y) for x, b, y in zip(means, bases, sums, strict=True)]
    # the sum over the workers, as published; only the directions matter
    sums = [count * x for x in sums]
    pairs = zip(bases, sums, strict=True)
    return left, means, [(b, s) if right else (s, b) for b, s in pairs]


def _quadruple(
    made: tuple[jax.Array, ...], x: jax.Array, p: jax.Array, q: jax.Array
) -> tuple[jax.Array, ...]:
    """(sent, mean, P, Q) of a leaf, as they were made of its matrix, in its shape and dtype."""
    both = (resharded(y.reshape(x.shape).astype(x.dtype), x) for y in made[:2])
    return (*both, made[2].astype(p.dtype), made[3].astype(q.dtype))


def _without_factors(both: Leaves) -> Leaves:
    """The same of leaves that are sent in full; what is written for their factors is dropped."""
    return map_leaves(lambda pair: (*pair, jnp.zeros(0), jnp.zeros(0)), both, most=TINY)


def _as_matrix(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)


def _real(x: jax.Array) -> jnp.dtype:
    return jnp.finfo(x.dtype).dtype


def _adjoint(x: jax.Array) -> jax.Array:
    return jnp.conj(x).mT


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y.astype(x.dtype), precision="highest")


def _orthonormal(x: jax.Array) -> jax.Array:
    if x.shape[-1] == 1:
        return x / jnp.maximum(norm(x, (-2, -1), keepdims=True), 1e-16)
    return linalg.qr(x)[0]


def _gram_schmidt(x: jax.Array, eps: float = 1e-8) -> jax.Array:
    """Columns made orthogonal one after another, each of length 1 / (1 + eps / length)."""
    columns: list[Any] = []
    for at in range(x.shape[-1]):
        column = x[..., at]
        for other in columns:
            column = column - jnp.sum(jnp.conj(other) * column, -1, keepdims=True) * other
        columns.append(column / (norm(column, -1, keepdims=True) + eps))
    return jnp.stack(columns, axis=-1)
