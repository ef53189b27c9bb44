"""Preconditioners Q^T Q that are fitted to curvature pairs while Q stays in a Lie group.

A group says what its elements are, how one is started, moved towards

    min over Q of  h^T Q^T Q h + v^T (Q^T Q)^-1 v

and applied. All works on batches: leaves that are stacks, or one vector as a batch of one.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ..curvature.pairs import WHITENING_DAMPING, given_or, hessian_along
from ..notation.build import Flow, delay, flow, step_count
from ..notation.checks import check_choice
from ..notation.functions import lift, lift_tree
from ..notation.signal import Signal
from ..notation.values import Leaves
from ..trees.random import Sampler, draw_like, fold_key, random_key
from .grouped import lift_in_turn
from .matrix_roots import multiply
from .tensor_statistics import as_tensors, mode_product, mode_products, unfolding

MODES = ("newton", "whiten")
NORMALIZERS = ("2nd", "1st")


class LieGroup(Protocol):
    """What `fit_preconditioner` has to know of a group."""

    def empty(self, x: Any) -> Any:
        """Zeros in the shapes of an element for vectors like `x`."""

    def start(self, x: Any, scale: Any, key: Any) -> Any:
        """The element to start from, `scale` times the identity as nearly as the group has it."""

    def moved(self, q: Any, v: Any, h: Any, rate: Any, key: Any, t: Any) -> Any:
        """The element after one step on the pair (v, h)."""

    def applied(self, q: Any, x: Any) -> Any:
        """Q^T Q x."""

    batched: bool
    """Whether its vectors are stacks, with one element for each along the leading axis."""


def _tiny(x: Any) -> Any:
    return jnp.finfo(x.dtype).tiny


def _maximum(x: Any, axes: Any) -> Any:
    return jnp.max(x, axis=axes, initial=0)


def norm_lower_bound(a: Any) -> Any:
    """A lower bound of the spectral norm of each matrix of a batch, from its largest row or column.

    With a the row (or column) of largest norm and x = A a, it is |A^T x| / |x|.

    Args:
      a: (batch, n, n).
    """
    size = _maximum(jnp.abs(a), (1, 2))
    a = a / jnp.where(size > 0, size, 1)[:, None, None]
    rows, columns = jnp.sum(a * a, axis=2), jnp.sum(a * a, axis=1)
    by_column = _maximum(columns, 1) > _maximum(rows, 1)
    b = jnp.where(by_column[:, None, None], jnp.swapaxes(a, 1, 2), a)
    largest = jnp.argmax(jnp.where(by_column[:, None], columns, rows), axis=1)
    row = jnp.take_along_axis(b, largest[:, None, None], axis=1)
    x = multiply(b, jnp.swapaxes(row, 1, 2))
    length = jnp.linalg.norm(x, axis=1, keepdims=True)
    back = multiply(jnp.swapaxes(x / jnp.where(length > 0, length, 1), 1, 2), b)
    return size * jnp.linalg.norm(back[:, 0], axis=1)


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

    max_size: Any
    max_skew: Any
    normalizer: str
    balance_probability: Any
    batched = True

    def _dense(self, shape: tuple[int, ...]) -> list[bool]:
        size = 1
        for n in shape:
            size *= n
        return [1 < n <= self.max_size and n * n <= self.max_skew * size for n in shape]

    def empty(self, x: Any) -> KroneckerElement:
        """Zeros in the shapes of the factors."""
        shape = as_tensors(x).shape
        dense = self._dense(shape[1:])
        factors = tuple(
            jnp.zeros((shape[0], n, n) if full else (shape[0], n), x.dtype)
            for n, full in zip(shape[1:], dense, strict=True)
        )
        return KroneckerElement(factors, tuple(jnp.zeros(shape[0], x.dtype) for _ in factors))

    def start(self, x: Any, scale: Any, key: Any) -> KroneckerElement:
        """scale^(1/k) I for each of the k factors."""
        empty = self.empty(x)
        root = scale ** (1 / len(empty.factors))
        factors = tuple(
            root[:, None, None] * jnp.eye(f.shape[-1], dtype=f.dtype)
            if f.ndim == 3
            else root[:, None] * jnp.ones_like(f)
            for f in empty.factors
        )
        return KroneckerElement(factors, empty.smoothness)

    def moved(
        self, q: KroneckerElement, v: Any, h: Any, rate: Any, key: Any, t: Any
    ) -> KroneckerElement:
        """All factors, each along the gradient of the same A = Q h and B = Q^-T v."""
        factors = self._balanced(q.factors, key)
        a, b = mode_products(as_tensors(h), factors), as_tensors(v)
        for axis, factor in enumerate(factors):
            b = _solved_transposed(b, factor, axis)
        new = [
            self._moved_factor(factor, smooth, unfolding(a, i), unfolding(b, i), rate)
            for i, (factor, smooth) in enumerate(zip(factors, q.smoothness, strict=True))
        ]
        return KroneckerElement(*(tuple(part) for part in zip(*new, strict=True)))

    def _balanced(self, factors: Any, key: Any) -> Any:
        if len(factors) == 1 or _is_zero(self.balance_probability):
            return factors
        sizes = [_maximum(jnp.abs(f), tuple(range(1, f.ndim))) for f in factors]
        mean = jnp.exp(sum(map(jnp.log, sizes)) / len(sizes))
        now = jax.random.uniform(key, ()) < self.balance_probability
        return tuple(
            f * jnp.where(now, mean / size, 1).reshape(-1, *[1] * (f.ndim - 1))
            for f, size in zip(factors, sizes, strict=True)
        )

    def _moved_factor(self, q: Any, smooth: Any, a: Any, b: Any, rate: Any) -> tuple[Any, Any]:
        if q.ndim == 2:
            one, two = jnp.sum(a * a, axis=2), jnp.sum(b * b, axis=2)
            difference, size = one - two, lambda x: _maximum(jnp.abs(x), 1)
        else:
            one, two = (multiply(x, jnp.swapaxes(x, 1, 2)) for x in (a, b))
            difference, size = jnp.triu(one - two), norm_lower_bound
        if self.normalizer == "2nd":
            bound = size(one + two)
            smooth = jnp.maximum(0.9 * smooth + 0.1 * bound, bound)
            bound = smooth
        else:
            bound = size(difference)
        step = (rate / (bound + _tiny(q))).reshape(-1, *[1] * (q.ndim - 1))
        change = difference * q if q.ndim == 2 else multiply(difference, q)
        return q - step * change, smooth

    def applied(self, q: KroneckerElement, x: Any) -> Any:
        """x multiplied along every dimension by Q_i^T Q_i."""
        transposed = tuple(f if f.ndim == 2 else jnp.swapaxes(f, 1, 2) for f in q.factors)
        return mode_products(mode_products(x, q.factors), transposed)


def _is_zero(number: Any) -> bool:
    return isinstance(number, int | float) and number == 0


def _solved_transposed(stack: Any, factor: Any, axis: int) -> Any:
    """The stacked tensors multiplied along one dimension by the factor's inverse transpose."""
    if factor.ndim == 2:
        return mode_product(stack, 1 / factor, axis)
    moved = jnp.moveaxis(stack, axis + 1, 1)
    rows = moved.reshape(*moved.shape[:2], -1)
    solved = jax.lax.linalg.triangular_solve(
        factor, rows, left_side=True, lower=False, transpose_a=True
    )
    return jnp.moveaxis(solved.reshape(moved.shape), 1, axis + 1)


class LowRankElement(NamedTuple):
    """Q = (I + U V^T) diag(d)."""

    U: Any
    V: Any
    d: Any


@dataclass(frozen=True)
class LowRank:
    """Diagonal matrices with a low-rank modification, on one vector.

    Attributes:
      rank: columns of U and V; 0 leaves a diagonal.
      normalizer: "2nd" or "1st": what the steps are divided by.
      alternate: U and V are updated in turn, U first, instead of by a coin.
      balance_probability: of a step that equalises the norms of U and V.
      init_factors: (U, V) to start from in place of random ones.
    """

    rank: int
    normalizer: str
    alternate: bool
    balance_probability: Any
    init_factors: tuple[Any, Any] | None
    batched = False

    def empty(self, x: Any) -> LowRankElement:
        """Zeros."""
        factor = jnp.zeros((x.size, self.rank), x.dtype)
        return LowRankElement(factor, factor, jnp.zeros_like(x))

    def start(self, x: Any, scale: Any, key: Any) -> LowRankElement:
        """scale I, and small random U and V."""
        d = scale * jnp.ones_like(x)
        if self.init_factors is not None:
            u, v = (jnp.asarray(factor, x.dtype) for factor in self.init_factors)
            return LowRankElement(u, v, d)
        draws = jax.random.normal(key, (2, x.size, self.rank), x.dtype)
        u, v = draws / jnp.sqrt(max(x.size, 1) * (self.rank + 10))
        return LowRankElement(u, v, d)

    def applied(self, q: LowRankElement, x: Any) -> Any:
        """d (I + V U^T) (I + U V^T) d x."""
        y = _low_rank(q.U, q.V, q.d * x)
        return q.d * _low_rank(q.V, q.U, y)

    def moved(
        self, q: LowRankElement, v: Any, h: Any, rate: Any, key: Any, t: Any
    ) -> LowRankElement:
        """d, and one of U and V, along the gradient at the same a = Q h and b = Q^-T v."""
        balance, coin = jax.random.split(key)
        U, V = self._balanced(q.U, q.V, balance)
        a = _low_rank(U, V, q.d * h)
        Ph = q.d * _low_rank(V, U, a)
        K = jnp.eye(self.rank, dtype=U.dtype) + multiply(V.T, U)
        w = v / q.d
        b = w - multiply(V, jnp.linalg.solve(K.T, multiply(U.T, w))) if self.rank else w
        inverse = b - multiply(U, jnp.linalg.solve(K, multiply(V.T, b))) if self.rank else b
        d = self._moved_diagonal(q.d, Ph, h, v, inverse / q.d, rate)
        if not self.rank:
            return LowRankElement(U, V, d)
        turn = t % 2 == 1 if self.alternate else jax.random.bernoulli(coin)
        new_U, new_V = jax.lax.cond(
            turn,
            lambda: (self._moved_left(U, V, K, a, b, rate), V),
            lambda: (U, self._moved_right(U, V, a, b, rate)),
        )
        return LowRankElement(new_U, new_V, d)

    def _balanced(self, U: Any, V: Any, key: Any) -> tuple[Any, Any]:
        if not self.rank or _is_zero(self.balance_probability):
            return U, V
        rho = jnp.sqrt(jnp.linalg.norm(U) / jnp.linalg.norm(V))
        now = jax.random.uniform(key, ()) < self.balance_probability
        rho = jnp.where(now & jnp.isfinite(rho) & (rho > 0), rho, 1)
        return U / rho, V * rho

    def _moved_diagonal(self, d: Any, Ph: Any, h: Any, v: Any, inverse: Any, rate: Any) -> Any:
        difference = Ph * h - v * inverse
        tiny = _tiny(d)
        if self.normalizer == "2nd":
            first = jax.lax.rsqrt(Ph * Ph + v * v + tiny)
            second = jax.lax.rsqrt(h * h + inverse * inverse + tiny)
            step = rate * jnp.min(first * second, initial=jnp.inf)
        else:
            step = rate / (_maximum(jnp.abs(difference), None) + tiny)
        return d - step * d * difference

    def _step(self, a: Any, b: Any, A: Any, B: Any, rate: Any) -> Any:
        if self.normalizer == "2nd":
            norm = jnp.linalg.norm
            size = norm(a) * norm(A) + norm(b) * norm(B)
        else:
            squares = (a @ a) * (A @ A) + (b @ b) * (B @ B) - 2 * (a @ b) * (A @ B)
            size = jnp.sqrt(jnp.abs(squares))
        return rate / (size + _tiny(a))

    def _moved_left(self, U: Any, V: Any, K: Any, a: Any, b: Any, rate: Any) -> Any:
        aV, bV = multiply(a, V), multiply(b, V)
        step = self._step(a, b, multiply(V, aV), multiply(V, bV), rate)
        change = jnp.outer(a, multiply(aV, K)) - jnp.outer(b, multiply(bV, K))
        return U - step * change

    def _moved_right(self, U: Any, V: Any, a: Any, b: Any, rate: Any) -> Any:
        aU, bU = multiply(a, U), multiply(b, U)
        step = self._step(a, b, multiply(U, aU), multiply(U, bU), rate)
        left = jnp.outer(a + multiply(V, aU), aU)
        return V - step * (left - jnp.outer(b + multiply(V, bU), bU))


def _low_rank(U: Any, V: Any, x: Any) -> Any:
    """(I + U V^T) x."""
    return x + multiply(U, multiply(V.T, x))


class CrossElement(NamedTuple):
    """Q = diag(a) + antidiag(b)."""

    a: Any
    b: Any


@dataclass(frozen=True)
class Cross:
    """Diagonal plus anti-diagonal matrices, on one vector: entry i meets entry n + 1 - i.

    Attributes:
      normalizer: "2nd" or "1st": what the step is divided by.
    """

    normalizer: str
    batched = False

    def empty(self, x: Any) -> CrossElement:
        """Zeros."""
        return CrossElement(jnp.zeros_like(x), jnp.zeros_like(x))

    def start(self, x: Any, scale: Any, key: Any) -> CrossElement:
        """scale I."""
        return CrossElement(scale * jnp.ones_like(x), jnp.zeros_like(x))

    def applied(self, q: CrossElement, x: Any) -> Any:
        """Q^T Q x, which is of the same form."""
        a, b = q
        return (a * a + jnp.flip(b * b)) * x + (a * b + jnp.flip(a * b)) * jnp.flip(x)

    def moved(self, q: CrossElement, v: Any, h: Any, rate: Any, key: Any, t: Any) -> CrossElement:
        """Both diagonals along the gradient at Q h and Q^-T v."""
        a, b = q
        ra, rb = jnp.flip(a), jnp.flip(b)
        Qh = a * h + b * jnp.flip(h)
        w = (ra * v - rb * jnp.flip(v)) / (a * ra - b * rb)
        nA = Qh * Qh - w * w
        nB = Qh * jnp.flip(Qh) - w * jnp.flip(w)
        if a.size % 2:
            nB = nB.at[a.size // 2].set(0)
        if self.normalizer == "2nd":
            size = _maximum(Qh * Qh + w * w, None)
        else:
            size = jnp.maximum(_maximum(jnp.abs(nA), None), _maximum(jnp.abs(nB), None))
        step = rate / (size + _tiny(a))
        return CrossElement(a - step * (nA * a + nB * rb), b - step * (nA * b + nB * ra))


def fit_preconditioner(
    group: LieGroup,
    rate: Any,
    mode: str,
    init_scale: Any = None,
    key: Any = 0,
    of: Callable[[Signal], Signal] = lambda tree: tree,
    sampler: Sampler | None = None,
) -> Flow:
    """The element of a group that is fitted to curvature pairs, one of them at every step.

    "newton" takes v ~ N(0, I) and h = H v, so that Q^T Q tends to |H|^-1, and needs `value_fn`, or
    the product as the input `hvp`. "whiten" takes h = g + 2^-13 mean|g| v, so that Q^T Q tends to
    E[g g^T]^(-1/2). The input `probe` stands in for v.

    An element starts at the first pair that is not zero, from `init_scale` or from the scale that
    suits the pair. A pair that is zero or not finite, and a step that would leave the finite
    numbers, leave the element as it is; `failed_updates` counts those that are not finite.

    Args:
      group: `Kronecker`, `LowRank` or `Cross`.
      rate: step size within the group.
      mode: "newton" or "whiten".
      init_scale: scale of the first Q; None takes it from the first pair.
      key: seed or key of the probes.
      of: brings a tree into the form that the group works on.
      sampler: `(key, count, params) -> tree` in place of the normal distribution.

    References:
      Li 2018, Preconditioned Stochastic Gradient Descent (arXiv 1512.04202), and Pooladzandi & Li
      2024 (arXiv 2402.04553).
    """

    check_choice("fit_preconditioner", "mode", mode, MODES)

    def fitted(v: Signal, h: Signal, fresh: Signal) -> Signal:
        v, h = of(v), of(h)
        past = delay(lift(lambda x: _unfitted(group, x), "unfitted")(h))
        move = lift_in_turn(functools.partial(_moved, group, rate, init_scale, mode), "fit")
        return past << move(past, v, h, fold_key(fresh, 1), step_count())

    def newton(
        g: Signal,
        params: Signal,
        value_fn: Signal | None = None,
        hvp: Signal | None = None,
        probe: Signal | None = None,
    ) -> Signal:
        fresh = random_key(key)
        v = given_or(probe, draw_like(params, fresh, "gaussian", sampler))
        return fitted(v, hessian_along(value_fn, hvp, params, v), fresh)

    def whiten(g: Signal, probe: Signal | None = None) -> Signal:
        fresh = random_key(key)
        return fitted(given_or(probe, draw_like(g, fresh, "gaussian", sampler)), g, fresh)

    return flow(newton if mode == "newton" else whiten, name="preconditioner")


class Fitted(NamedTuple):
    """What `fit_preconditioner` keeps of one leaf of the group.

    Attributes:
      element: its parts, all zero before the first pair.
      failed: whether the last step was not taken because something was not finite.
    """

    element: Any
    failed: Any


def _unfitted(group: LieGroup, x: Any) -> Fitted:
    return Fitted(group.empty(x), jnp.zeros(x.shape[:1] if group.batched else (), jnp.bool_))


def _over(reduce: Callable[..., Any], x: Any, group: LieGroup) -> Any:
    """A reduction of every vector: one number per element of the group."""
    return reduce(x, axis=tuple(range(1 if group.batched else 0, x.ndim)))


def _all_over(test: Callable[[Any], Any], tree: Any, group: LieGroup) -> Any:
    parts = [_over(jnp.all, test(x), group) for x in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, parts)


def _choose(flag: Any, one: Any, other: Any) -> Any:
    """One element or the other, by a flag for each."""
    return jax.tree.map(
        lambda x, y: jnp.where(flag.reshape(flag.shape + (1,) * (x.ndim - flag.ndim)), x, y),
        one,
        other,
    )


def _started(group: LieGroup, element: Any) -> Any:
    return ~_all_over(lambda part: part == 0, element, group)


def _moved(
    group: LieGroup,
    rate: Any,
    init_scale: Any,
    mode: str,
    past: Fitted,
    v: Any,
    h: Any,
    key: Any,
    t: Any,
) -> Fitted:
    scale = _first_scale(group, v, h, mode) if init_scale is None else init_scale
    sound, present = _over(jnp.all, jnp.isfinite(h), group), _over(jnp.any, h != 0, group)
    if mode == "whiten":
        size = _over(jnp.mean, jnp.abs(h), group)
        h = h + WHITENING_DAMPING * size.reshape(size.shape + (1,) * (h.ndim - size.ndim)) * v
    scale = jnp.broadcast_to(jnp.asarray(scale, h.dtype), present.shape)
    started = _started(group, past.element)
    q = _choose(started, past.element, group.start(h, scale, key))
    new = group.moved(q, v, h, jnp.asarray(rate, h.dtype), key, t)
    sound = sound & _all_over(jnp.isfinite, new, group)
    return Fitted(_choose(sound & present, new, past.element), ~sound & present)


def _first_scale(group: LieGroup, v: Any, h: Any, mode: str) -> Any:
    scale = _over(jnp.mean, h**4, group) ** (-1 / 8)
    return scale if mode == "whiten" else _over(jnp.mean, v**2, group) ** (1 / 4) * scale


def preconditioned(fitted: Signal, x: Signal, group: LieGroup) -> Signal:
    """Q^T Q x; x itself as long as there has been no pair.

    Args:
      fitted: what `fit_preconditioner` gives.
      x: a signal in the form that the group works on.
      group: the same group.
    """

    def apply(q: Fitted, x: Any) -> Any:
        return _choose(_started(group, q.element), group.applied(q.element, x), x)

    return lift(apply, "precondition")(fitted, x)


def failed_updates(fitted: Signal) -> Signal:
    """How many elements of a group were left as they were, as a scalar signal."""

    def count(tree: Leaves) -> Any:
        flags = [jnp.sum(leaf.failed, dtype=jnp.int32) for leaf in tree.present()]
        return sum(flags, jnp.zeros((), jnp.int32))

    shape = jax.ShapeDtypeStruct((), jnp.int32)
    return lift_tree(count, "failed_updates", out=lambda *_: shape)(fitted)
