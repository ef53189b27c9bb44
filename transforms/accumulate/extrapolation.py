"""Extrapolation of a sequence of vectors."""

from typing import Any

import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.functions import lift
from ..notation.hyperparameters import NonNegative, Size
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
      reg: absolute regularisation of their Gramian.

    References:
      Scieur, d'Aspremont & Bach 2016, Regularized Nonlinear Acceleration.
    """

    def step(g: Signal) -> Signal:
        return lift(_guess, "extrapolate")(g, g >> last_values(history + 1), step_count(), reg)

    return flow(step)


def _guess(g: Any, values: Any, t: Any, reg: Any) -> Any:
    history = len(values) - 1
    differences = replicated(jnp.diff(values, axis=0)).reshape(history, -1)
    gramian = jnp.matmul(differences, differences.T.conj(), precision="highest").real
    system = gramian + reg * jnp.eye(history, dtype=gramian.dtype)
    z = jnp.linalg.solve(system, jnp.ones(history, gramian.dtype))
    weights = z / jnp.sum(z)
    guess = jnp.tensordot(weights, values[1:], axes=1, precision="highest")
    return jnp.where(t > history, guess, g)
