"""The Flag Aggregator: what the gradients of all workers have in common."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from ...registry import method
from ...transforms import FlowError, Key, NonNegativeConstant, PositiveConstant, Size, is_neutral
from ...transforms.notation import draws, linalg
from ...transforms.notation.checks import checked
from ...transforms.notation.known import repeat
from ...transforms.notation.roots import norm, root
from ...transforms.objectives import symmetric_pseudo_inverse
from ...transforms.trees.random import typed_key
from .rows import Rows, joined, trailing

LEAST_DECREASE = 1e-10


@method(
    "Almasi et al. 2024, Flag Aggregator: Scalable Distributed Training under Failures and "
    "Augmented Losses using Convex Optimization",
    arxiv="2302.05865",
    tags=("robust", "noise"),
    kind="rule",
    learning_rate=None,
)
@checked()
def flag_aggregator(
    rank: Size = 1,
    lambda_: NonNegativeConstant = 0.0,
    num_iters: Size = 1,
    eps: PositiveConstant = 1e-7,
    scale: Literal["official", "paper"] = "official",
    key: Key = 0,
    init: jax.Array | Callable[[jax.Array, Any, None], jax.Array] | None = None,
) -> Callable[..., Any]:
    r"""The part of all gradients that lies in the subspace which holds most of them.

    With the gradients of p workers brought to length 1 over all leaves, and Y the orthonormal
    basis of a subspace, at first of a random one, for as long as :math:`\sum_i \sqrt{1 - \|Y^T
    g_i\|^2}` falls:

    .. math::
        w_i &= (|1 - \|Y^T g_i\|^2| + \epsilon)^{-1/4}, \qquad
        w_{ij} = \tfrac{\lambda}{p (p - 1)} (|1 - \|Y^T (g_i - g_j)\|^2| + \epsilon)^{-1/4} \\
        Y &\leftarrow \text{leading left singular vectors of all } w_i g_i
            \text{ and } w_{ij} (g_i - g_j)

    and the result is :math:`\frac 1 r \sum_i Y Y^T g_i`. It has no length of the gradients in it.

    Gradients that are not finite count as 0. There is no bound on what the others may do.

    Args:
      rank: r, the dimension of the subspace; the paper advises (p + 1) / 2. At most the number of
        columns counts.
      lambda_: weight of the differences between workers; the paper goes up to p.
      num_iters: steps at most. After few of them the result depends on the random start.
      eps: epsilon, in the weights.
      scale: "official" is the above; "paper" projects the gradients in their own lengths, and takes
        the mean over the workers.
      key: seed or key of the start; workers that each apply the rule need the same.
      init: the start in place of the draw: a matrix whose columns span the subspace, with the
        entries of all leaves in a row of the tree; or `(key, count, params) -> matrix`, which gets
        None for the params.

    Returns:
      The rule: a function from a stacked tree, and the number `count` of the step, 0 by default,
      from which the start is drawn, to a tree. `aggregate` and `robust_aggregate` count the steps.

    Raises:
      ValueError: for a hyper-parameter out of range; by the rule, for complex gradients, or a start
        of another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import flag_aggregator
      >>> rule = flag_aggregator(num_iters=20)
      >>> one = rule(jnp.array([[2.0, 0.0], [3.0, 0.0], [5.0, 0.0], [0.0, 99.0]]))
      >>> [round(float(x), 3) for x in one]
      [3.0, 0.0]

    References:
      Almasi, Mishra, Vamanan & Ravi 2024 (arXiv 2302.05865). As in hamidralmasi/FlagAggregator the
      defaults are one step, division by r and unit gradients, and w_ij multiplies the column, so
      that it enters squared.
    """

    def rule(stacked: optax.Params, count: int | jax.Array = 0) -> optax.Params:
        rows = Rows.of("flag_aggregator", stacked)
        if any(jnp.iscomplexobj(x) for x in rows.leaves):
            raise FlowError("flag_aggregator: gradients must be real, some leaves are complex")
        if rows.size == 0:
            return rows.tree([x[0] for x in rows.leaves])
        lengths = jax.lax.stop_gradient(_lengths(rows))
        columns = len(rows) if is_neutral(lambda_) else len(rows) ** 2
        divided_by = min(rank, columns)
        units = rows.scaled(1 / jnp.maximum(lengths, 1e-12))
        fixed = units.constant()
        basis = _start(fixed, min(rank, columns, units.size), key, count, init)
        share = 1 / divided_by if scale == "official" else lengths / len(rows)
        share = jnp.broadcast_to(share, (len(rows),)).astype(rows.dtype)
        found = _search(fixed, basis, lambda_, num_iters, eps)
        outside = found.at_start * (basis.inverse @ basis.inner @ share)
        within = units.weighted((1 - found.at_start) * (found.mix @ share))
        return rows.tree(
            [x + _spanned(outside, y) for x, y in zip(within, basis.leaves, strict=True)]
        )

    return rule


class Basis(NamedTuple):
    """A subspace by vectors that span it, and what is known of them and the gradients."""

    leaves: list[Any]
    inner: Any
    inverse: Any


class Subspace(NamedTuple):
    """Where the search stands.

    Attributes:
      gram: inner products of the gradients' projections.
      mix: the projection of gradient j is the sum over i of gradient i times `mix[i, j]`.
      loss: what has to fall.
      fell: by how much it did.
      at_start: 1 while it is the random one, of which `mix` says nothing.
    """

    gram: jax.Array
    mix: jax.Array
    loss: jax.Array
    fell: jax.Array
    at_start: jax.Array


def _lengths(rows: Rows) -> jax.Array:
    parts = [norm(x, trailing(x)) for x in rows.leaves]
    return joined(parts, (len(rows),), rows.dtype)


def _start(rows: Rows, rank: int, key: Key, count: int | jax.Array, init: Any) -> Basis:
    """Uniform draws, or what was given."""
    fresh = draws.fold_in(typed_key(key), count)
    if init is None:
        keys = draws.split(fresh, len(rows.leaves))
        pairs = zip(keys, rows.leaves, strict=True)
        leaves = [draws.uniform(k, (rank, *x.shape[1:]), x.dtype, -0.5, 0.5) for k, x in pairs]
    else:
        leaves = _parted(init(fresh, count, None) if callable(init) else init, rank, rows)
    inner = _products(leaves, rows.leaves, rows.dtype)
    inverse = symmetric_pseudo_inverse(_products(leaves, leaves, rows.dtype), 1e-6)
    return Basis(leaves, inner, inverse)


def _parted(matrix: jax.Array, rank: int, rows: Rows) -> list[jax.Array]:
    matrix = jnp.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != rows.size or matrix.shape[1] < rank:
        raise FlowError(
            f"flag_aggregator: init must have the shape ({rows.size}, {rank}), the number of "
            f"params and the rank, got {matrix.shape}"
        )
    ends = [math.prod(x.shape[1:]) for x in rows.leaves]
    parts = jnp.split(matrix[:, :rank].T, [sum(ends[: i + 1]) for i in range(len(ends) - 1)], 1)
    pairs = zip(parts, rows.leaves, strict=True)
    return [part.reshape(rank, *x.shape[1:]).astype(x.dtype) for part, x in pairs]


def _products(left: list[jax.Array], right: list[jax.Array], dtype: DTypeLike) -> jax.Array:
    """Inner products of all pairs of rows, over all leaves."""
    total: Any = 0
    for x, y in zip(left, right, strict=True):
        axes = tuple(range(1, x.ndim))
        part = jax.lax.dot_general(x, y, ((axes, axes), ((), ())), precision="highest")
        total = total + part.astype(dtype)
    return total


def _spanned(weights: jax.Array, leaf: jax.Array) -> jax.Array:
    return jnp.tensordot(weights.astype(leaf.dtype), leaf, axes=1, precision="highest")


@dataclass(frozen=True)
class _Columns:
    """The gradients in an orthonormal basis of their span: `half.T` are their coordinates."""

    half: Any
    back: Any

    @classmethod
    def of(cls, gram: jax.Array) -> "_Columns":
        values, vectors = linalg.eigh(gram)
        known = values > 4 * len(gram) * jnp.finfo(gram.dtype).eps * values[-1]
        roots = jnp.where(known, jnp.sqrt(jnp.where(known, values, 1)), 0)
        inverse = jnp.where(known, 1 / jnp.where(known, roots, 1), 0)
        return cls(vectors * roots[None, :], vectors * inverse[None, :])

    def leading(self, scatter: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
        """Inner products and mixing of the projections onto the leading directions."""
        _, vectors = linalg.eigh(_dot(_dot(self.half.T, scatter), self.half))
        seen = _dot(self.half, vectors[:, -rank:])
        return _dot(seen, seen.T), _dot(_dot(self.back, vectors[:, -rank:]), seen.T)


def _search(
    rows: Rows, basis: Basis, lambda_: float | jax.Array, num_iters: int, eps: float | jax.Array
) -> Subspace:
    columns = _Columns.of(_products(rows.leaves, rows.leaves, rows.dtype))
    rank = min(len(basis.leaves[0]), len(rows))

    def step(_: int | jax.Array, now: Subspace) -> Subspace:
        scatter = _scatter(now.gram, lambda_, eps)
        gram, mix = columns.leading(scatter, rank)
        loss = _loss(gram)
        fell = now.loss - loss
        going = (now.fell > LEAST_DECREASE) & (now.loss > LEAST_DECREASE)
        better = going & (fell > 0)
        found = Subspace(gram, mix, loss, fell, jnp.zeros_like(now.at_start))
        kept = now._replace(fell=jnp.where(going, fell, now.fell))
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), found, kept)

    at = _dot(_dot(basis.inner.T, basis.inverse), basis.inner)
    one = jnp.ones((), rows.dtype)
    return repeat(num_iters, step, Subspace(at, jnp.zeros_like(at), _loss(at), one, one))


def _loss(gram: jax.Array) -> jax.Array:
    return jnp.sum(root(jnp.maximum(1 - jnp.diagonal(gram), 0)))


def _scatter(gram: jax.Array, lambda_: float | jax.Array, eps: float | jax.Array) -> jax.Array:
    """Coefficients of the columns' scatter matrix in the gradients."""
    own = jnp.diagonal(gram)
    weights = (jnp.abs(1 - own) + eps) ** -0.5
    apart = own[:, None] + own[None, :] - 2 * gram
    p = len(gram)
    pairs = (lambda_ / max(p * (p - 1), 1)) ** 2 * (jnp.abs(1 - apart) + eps) ** -0.5
    pairs = pairs * (1 - jnp.eye(p, dtype=gram.dtype))
    both = jnp.diag(jnp.sum(pairs, axis=1)) - pairs
    return jnp.diag(weights) + 2 * both


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
