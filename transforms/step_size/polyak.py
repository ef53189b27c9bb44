"""Polyak step sizes from the quadratic model of the loss."""

import jax
import jax.numpy as jnp
import optax

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.functions import global_dot, lift
from ..notation.hyperparameters import Number
from ..notation.roots import root
from ..notation.signal import Signal
from ..notation.steps import tap


@checked()
def quadratic_polyak_step(value: Signal, f_star: Number, squared_norm: Signal) -> Signal:
    """How far along -B^{-1} g the quadratic model of the loss reaches its least value.

    A function of signals.

    The smaller root l of f - l G + l^2 G / 2 = f_star, with G = <g, B^{-1} g>; the whole step, 1,
    where there is none. A scalar signal.

    Args:
      value: f, the loss; below f_star it counts as f_star.
      f_star: the least possible loss.
      squared_norm: G.
    """
    return _smaller_root(value, f_star, squared_norm)


def _root(value: jax.Array, f_star: float | jax.Array, squared_norm: jax.Array) -> jax.Array:
    gap = jnp.maximum(value - f_star, 0)
    reachable = (squared_norm > 0) & (2 * gap < squared_norm)
    c = gap / jnp.where(reachable, squared_norm, 1)
    fraction = 2 * c / (1 + root(jnp.where(reachable, 1 - 2 * c, 1)))
    return jnp.where(jnp.isnan(gap), 0, jnp.where(reachable & (2 * c < 1), fraction, 1))


_smaller_root = lift(_root, "quadratic_polyak_step")


@transformation()
def with_polyak_step(inner: optax.GradientTransformation, f_star: Number = 0.0) -> Flow:
    """Scales a preconditioned gradient by its Polyak step; see `quadratic_polyak_step`.

    A transformation to send signals through.

    Needs `value`. All leaves share one step.

    Args:
      inner: turns g into B^{-1} g: any preconditioner without a learning rate.
      f_star: the least possible loss.

    References:
      Abdukhakimov et al. 2023, SANIA: Polyak-type Optimization Framework Leads to Scale Invariant
      Stochastic Algorithms.
    """

    def step(g: Signal, value: Signal) -> Signal:
        direction = g >> inner
        rate = quadratic_polyak_step(value, f_star, global_dot(direction, g))
        return tap("polyak_step", rate) * direction

    return flow(step)
