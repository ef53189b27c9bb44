"""Subgradients of convex, even functions: what a momentum becomes in the Lion-K family."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from ...transforms import (
    AtLeastOne,
    NonNegative,
    Positive,
    Signal,
    checked,
    lift,
    normalize,
    polar_factor,
)
from ...transforms.notation.roots import maximum_over, shares_of_maximum


def _lp(c: Signal, power: float | jax.Array) -> Signal:
    def of(x: jax.Array, p: jax.Array) -> jax.Array:
        # Relative to the largest entry: no power over- or underflows.
        size = jnp.abs(x)
        top = maximum_over(size)
        relative = size / jnp.where(top == 0, 1, top)
        total = jnp.sum(jnp.where(size == 0, 0, relative**p))
        norm = jnp.where(total == 0, 1, total) ** (1 / p)
        return jnp.sign(x) * (relative / norm) ** (p - 1)

    return lift(of, "lp")(c, power)


def _linf(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    return jnp.sign(x) * shares_of_maximum(size, jnp.max(size, initial=0.0))


def _nuclear(x: jax.Array) -> jax.Array:
    return polar_factor(x) if x.ndim == 2 else jnp.sign(x)


def _group(c: Signal) -> Signal:
    return normalize(c, axis=-1)


Kappa = Literal["l1", "l2", "lp", "linf", "group_l2", "huber", "trunc_l1", "nuclear", "quadratic"]

SUBGRADIENTS: dict[Kappa, Callable[..., Signal]] = {
    "l1": lambda c, *_: lift(jnp.sign, "sign")(c),
    "l2": lambda c, *_: normalize(c),
    "lp": lambda c, power, *_: _lp(c, power),
    "linf": lambda c, *_: lift(_linf, "linf")(c),
    "group_l2": lambda c, *_: _group(c),
    "huber": lambda c, _, delta, __: lift(lambda x, d: jnp.clip(x / d, -1, 1), "huber")(c, delta),
    "trunc_l1": lambda c, _, __, threshold: lift(
        lambda x, e: jnp.where(jnp.abs(x) > e, jnp.sign(x), 0), "trunc_l1"
    )(c, threshold),
    "nuclear": lambda c, *_: lift(_nuclear, "nuclear")(c),
    "quadratic": lambda c, *_: c,
}


@checked()
def subgradient(
    c: Signal,
    kappa: Kappa | Callable[[jax.Array], jax.Array] = "l1",
    power: AtLeastOne = 2.0,
    delta: Positive = 1.0,
    threshold: NonNegative = 0.0,
) -> Signal:
    """A subgradient of K, leaf by leaf; zero leaves become zero.

        l1         sign(c)
        l2         c / |c|
        lp         sign(c) (|c| / |c|_p)^(p-1)
        linf       sign(c_i) / k on the k entries of largest magnitude, else 0
        group_l2   c over its norm along the last axis (scalars: sign)
        huber      clip(c / delta, -1, 1)
        trunc_l1   sign(c) where |c| > threshold, else 0
        nuclear    U V^T of the singular value decomposition of matrices (others: sign)
        quadratic  c

    Args:
      c: a tree signal.
      kappa: which K, or a function that gives the subgradient of a leaf.
      power: p of "lp", at least 1.
      delta: width of "huber".
      threshold: of "trunc_l1".

    References:
      Chen, Liu, Liang & Liu 2023, Lion Secretly Solves Constrained Optimization.
    """
    if callable(kappa):
        return lift(kappa, "kappa")(c)
    return SUBGRADIENTS[kappa](c, power, delta, threshold)
