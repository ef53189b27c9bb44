"""Extrapolation of a sequence of vectors."""

import functools
import operator

import jax
import jax.numpy as jnp

from ..notation import linalg
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import lift
from ..notation.hyperparameters import NonNegative, Size
from ..notation.roots import magnitude, root
from ..notation.rows import FEW
from ..notation.sharding import replicated
from ..notation.signal import Signal
from ..notation.steps import step_count
from .last_values import last_values


@transformation()
def extrapolate(history: Size = 5, reg: NonNegative = 1e-3) -> Flow:
    """Guesses the next value from the last ones, leaf by leaf.

    A transformation to send signals through.

    Regularised minimal polynomial extrapolation: with y_0 .. y_r the last r + 1 values, oldest
    first, and U the matrix with the rows y_i - y_{i-1},

        solve (U U^T + reg I) z = 1,    c = z / sum(z),    guess = sum_{i=1..r} c_i y_i

    Until r + 1 values are known, the guess is the newest of them.

    Args:
      history: r, how many differences are used.
      reg: absolute regularisation of their Gramian; at least the rounding of the differences, so
        that large ones on a line do not break the step.

    References:
      Scieur, d'Aspremont & Bach 2016, Regularized Nonlinear Acceleration.
    """

    def step(g: Signal) -> Signal:
        return lift(_guess, "extrapolate")(g, g >> last_values(history + 1), step_count(), reg)

    return flow(step)


def _guess(g: jax.Array, values: jax.Array, t: jax.Array, reg: float | jax.Array) -> jax.Array:
    history = len(values) - 1
    differences = replicated(jnp.diff(values, axis=0)).reshape(history, -1)
    size = magnitude(differences).reshape(())
    least = jnp.finfo(size.dtype).eps
    ridge = jnp.clip(root(jnp.asarray(reg, size.dtype)) / size, least, 1 / least)
    # By triangular factors, not by the Gramian, whose condition number is the square.
    below = ridge * jnp.eye(history, dtype=differences.dtype)
    ones = jnp.ones((history, 1), differences.dtype)
    z = linalg.solve_normal((differences / size).T, below, ones)[..., 0].real
    return jnp.where(t > history, _weighted(z / jnp.sum(z), values[1:]), g)


def _weighted(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """Their sum, of a few entry by entry: XLA:CPU compiles a product of matrices for each leaf."""
    if len(rows) > FEW:
        return jnp.tensordot(weights, rows, axes=1, precision="highest")
    return functools.reduce(operator.add, map(operator.mul, weights, rows))
