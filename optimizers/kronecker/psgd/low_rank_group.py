"""Diagonal matrices with a low-rank modification as a Lie group."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ....transforms import is_neutral
from ....transforms.kronecker.matrix_roots import multiply
from ....transforms.notation import draws, linalg
from ....transforms.notation.known import choose
from ....transforms.notation.roots import (
    hypotenuse,
    maximum_over,
    norm,
    root,
    saturated,
    smooth_quotient,
    usable,
)
from .lie_groups import shrinking, tiny_of


class LowRankElement(NamedTuple):
    """Q = (I + U V^T) diag(d)."""

    U: jax.Array
    V: jax.Array
    d: jax.Array


@dataclass(frozen=True)
class LowRank:
    """Diagonal matrices with a low-rank modification, on one vector.

    Attributes:
      rank: columns of U and V; 0 leaves a diagonal.
      normalizer: "2nd" or "1st": what the steps are divided by.
      alternate: U and V are updated in turn, U first, instead of by a coin.
      balance_probability: of a step that equalises the norms of U and V.
      init_factors: (U, V) to start from in place of random ones.
      coin_fn: `(key, count) -> bool`, whether it is U, in place of the fair coin and of the turns.
    """

    rank: int
    normalizer: str
    alternate: bool
    balance_probability: float | jax.Array
    init_factors: tuple[jax.Array, jax.Array] | None
    coin_fn: Callable[[Any, Any], Any] | None = None
    batched = False

    def empty(self, x: jax.Array) -> LowRankElement:
        """Zeros."""
        factor = jnp.zeros((x.size, self.rank), x.dtype)
        return LowRankElement(factor, factor, jnp.zeros_like(x))

    def start(self, x: jax.Array, scale: jax.Array, key: jax.Array) -> LowRankElement:
        """scale I, and small random U and V."""
        d = scale * jnp.ones_like(x)
        if self.init_factors is not None:
            u, v = (jnp.asarray(factor, x.dtype) for factor in self.init_factors)
            return LowRankElement(u, v, d)
        drawn = draws.normal(key, (2, x.size, self.rank), x.dtype)
        u, v = drawn / math.sqrt(max(x.size, 1) * (self.rank + 10))
        return LowRankElement(u, v, d)

    def applied(self, q: LowRankElement, x: jax.Array) -> jax.Array:
        """d (I + V U^T) (I + U V^T) d x."""
        y = _low_rank(q.U, q.V, q.d * x)
        return q.d * _low_rank(q.V, q.U, y)

    def moved(
        self,
        q: LowRankElement,
        v: jax.Array,
        h: jax.Array,
        rate: jax.Array,
        key: jax.Array,
        t: jax.Array,
    ) -> LowRankElement:
        """d, and one of U and V, along the gradient at the same a = Q h and b = Q^-T v."""
        balance, coin = draws.split(key)
        U, V = self._balanced(q.U, q.V, balance)
        a = _low_rank(U, V, q.d * h)
        K = jnp.eye(self.rank, dtype=U.dtype) + multiply(V.T, U)
        w = v / q.d
        b = w - multiply(V, linalg.solve(K.T, multiply(U.T, w))) if self.rank else w
        scale = shrinking(a, b, self.batched)
        d, a, b = q.d * scale, a * scale, b / scale
        Ph = d * _low_rank(V, U, a)
        inverse = b - multiply(U, linalg.solve(K, multiply(V.T, b))) if self.rank else b
        d = self._moved_diagonal(d, Ph, h, v, inverse / d, rate)
        if not self.rank:
            return LowRankElement(U, V, d)
        new_U, new_V = choose(
            self._turn(coin, t),
            lambda: (self._moved_left(U, V, K, a, b, rate), V),
            lambda: (U, self._moved_right(U, V, a, b, rate)),
        )
        return LowRankElement(new_U, new_V, d)

    def _turn(self, key: jax.Array, t: jax.Array) -> jax.Array:
        """Whether U is updated, not V."""
        if self.coin_fn is not None:
            return jnp.asarray(self.coin_fn(key, t - 1), jnp.bool_).reshape(())
        return t % 2 == 1 if self.alternate else draws.bernoulli(key)

    def _balanced(self, U: jax.Array, V: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        if not self.rank or is_neutral(self.balance_probability):
            return U, V
        rho = root(norm(U) / norm(V))
        now = draws.uniform(key, ()) < self.balance_probability
        rho = jnp.where(now & jnp.isfinite(rho) & (rho > 0), rho, 1)
        return U / rho, V * rho

    def _moved_diagonal(
        self,
        d: jax.Array,
        Ph: jax.Array,
        h: jax.Array,
        v: jax.Array,
        inverse: jax.Array,
        rate: jax.Array,
    ) -> jax.Array:
        difference = Ph * h - v * inverse
        tiny = tiny_of(d)
        if self.normalizer == "2nd":
            lengths = (hypotenuse(*pair) + tiny for pair in ((Ph, v), (h, inverse)))
            first, second = (smooth_quotient(jnp.ones_like(x), x) for x in lengths)
            step = rate * -maximum_over(-saturated(first * second), initial=-jnp.inf)
        else:
            step = smooth_quotient(rate, maximum_over(jnp.abs(difference)) + tiny)
        return d - d * (step * difference)

    def _step(
        self, a: jax.Array, b: jax.Array, A: jax.Array, B: jax.Array, rate: jax.Array
    ) -> jax.Array:
        if self.normalizer == "2nd":
            size = norm(a) * norm(A) + norm(b) * norm(B)
        else:
            size = _distance(a, A, b, B)
        return smooth_quotient(rate, size + tiny_of(a))

    def _moved_left(
        self, U: jax.Array, V: jax.Array, K: jax.Array, a: jax.Array, b: jax.Array, rate: jax.Array
    ) -> jax.Array:
        aV, bV = multiply(a, V), multiply(b, V)
        step = self._step(a, b, multiply(V, aV), multiply(V, bV), rate)
        change = jnp.outer(a, multiply(aV, K)) - jnp.outer(b, multiply(bV, K))
        return U - step * change

    def _moved_right(
        self, U: jax.Array, V: jax.Array, a: jax.Array, b: jax.Array, rate: jax.Array
    ) -> jax.Array:
        aU, bU = multiply(a, U), multiply(b, U)
        step = self._step(a, b, multiply(U, aU), multiply(U, bU), rate)
        left = jnp.outer(a + multiply(V, aU), aU)
        return V - step * (left - jnp.outer(b + multiply(V, bU), bU))


def _distance(a: jax.Array, A: jax.Array, b: jax.Array, B: jax.Array) -> jax.Array:
    """The norm of a A^T - b B^T, of vectors whose fourth powers may vanish."""
    (a, x), (A, X), (b, y), (B, Y) = map(_direction, (a, A, b, B))
    size = usable(jnp.maximum(x * X, y * Y))
    one, other = x * X / size, y * Y / size
    return size * root(jnp.abs(one**2 + other**2 - 2 * one * other * (a @ b) * (A @ B)))


def _direction(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    size = norm(x)
    return x / jnp.where(size == 0, 1, size), size


def _low_rank(U: jax.Array, V: jax.Array, x: jax.Array) -> jax.Array:
    """(I + U V^T) x."""
    return x + multiply(U, multiply(V.T, x))
