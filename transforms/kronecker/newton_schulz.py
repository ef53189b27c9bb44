"""Approximate orthogonalisation of matrices."""

from typing import Any

import jax.numpy as jnp

from ..notation.functions import lift
from ..notation.hyperparameters import DType, NonNegative
from ..notation.roots import norm
from ..notation.sharding import replicated
from ..notation.signal import Signal

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients that bring singular values quickly to about (0.7, 1.2)."""


def newton_schulz(
    matrix: Signal,
    steps: int = 5,
    coefficients: tuple[float, float, float] = QUINTIC,
    eps: NonNegative = 1e-7,
    dtype: DType | None = None,
) -> Signal:
    """Brings all singular values of each matrix near 1: an approximate U V^T.

    A function of signals.

        X = M / (|M|_F + eps)
        X <- a X + (b A + c A^2) X,  A = X X^H          `steps` times

    Args:
      matrix: a signal of matrices (further axes in front are batch axes).
      steps: iterations.
      coefficients: a, b, c.
      eps: added to the norm.
      dtype: in which it is computed; default the signal's own.

    References:
      Jordan et al. 2024, Muon. Bernstein & Newhouse 2024, Old Optimizer, New Norm
      (arXiv 2409.20325).
    """

    def orthogonalised(m: Any, eps: Any) -> Any:
        x = replicated(m).astype(dtype or m.dtype)
        length = norm(x, axis=(-2, -1), keepdims=True) + eps
        x = x / jnp.where(length == 0, 1, length)
        tall = x.shape[-2] > x.shape[-1]
        x = _transposed(x) if tall else x
        a, b, c = coefficients
        for _ in range(steps):
            gram = x @ _transposed(x)
            x = a * x + (b * gram + c * gram @ gram) @ x
        return (_transposed(x) if tall else x).astype(m.dtype)

    return lift(orthogonalised, "newton_schulz")(matrix, eps)


def _transposed(x: Any) -> Any:
    return jnp.swapaxes(x, -1, -2).conj()
