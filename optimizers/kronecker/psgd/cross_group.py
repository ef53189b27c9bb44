"""Diagonal plus anti-diagonal matrices as a Lie group."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ....transforms.notation.roots import maximum_over, smooth_quotient
from .lie_groups import shrinking, tiny_of


class CrossElement(NamedTuple):
    """Q = diag(a) + antidiag(b)."""

    a: jax.Array
    b: jax.Array


@dataclass(frozen=True)
class Cross:
    """Diagonal plus anti-diagonal matrices, on one vector: entry i meets entry n + 1 - i.

    Attributes:
      normalizer: "2nd" or "1st": what the step is divided by.
    """

    normalizer: str
    batched = False

    def empty(self, x: jax.Array) -> CrossElement:
        """Zeros."""
        return CrossElement(jnp.zeros_like(x), jnp.zeros_like(x))

    def start(self, x: jax.Array, scale: jax.Array, key: jax.Array) -> CrossElement:
        """scale I."""
        return CrossElement(scale * jnp.ones_like(x), jnp.zeros_like(x))

    def applied(self, q: CrossElement, x: jax.Array) -> jax.Array:
        """Q^T Q x, which is of the same form."""
        a, b = q
        return (a * a + jnp.flip(b * b)) * x + (a * b + jnp.flip(a * b)) * jnp.flip(x)

    def moved(
        self,
        q: CrossElement,
        v: jax.Array,
        h: jax.Array,
        rate: jax.Array,
        key: jax.Array,
        t: jax.Array,
    ) -> CrossElement:
        """Both diagonals along the gradient at Q h and Q^-T v."""
        a, b = q
        ra, rb = jnp.flip(a), jnp.flip(b)
        Qh = a * h + b * jnp.flip(h)
        w = (ra * v - rb * jnp.flip(v)) / (a * ra - b * rb)
        scale = shrinking(Qh, w, self.batched)
        a, b, Qh, w = a * scale, b * scale, Qh * scale, w / scale
        ra, rb = ra * scale, rb * scale
        nA = Qh * Qh - w * w
        nB = Qh * jnp.flip(Qh) - w * jnp.flip(w)
        if a.size % 2:
            nB = nB.at[a.size // 2].set(0)
        if self.normalizer == "2nd":
            size = maximum_over(Qh * Qh + w * w, None)
        else:
            size = jnp.maximum(maximum_over(jnp.abs(nA), None), maximum_over(jnp.abs(nB), None))
        step = smooth_quotient(rate, size + tiny_of(a))
        return CrossElement(a - step * (nA * a + nB * rb), b - step * (nA * b + nB * ra))
