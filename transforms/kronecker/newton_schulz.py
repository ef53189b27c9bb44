"""Approximate orthogonalisation of matrices."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..notation import linalg
from ..notation.checks import checked
from ..notation.errors import FlowError
from ..notation.functions import lift
from ..notation.hyperparameters import DType, NonNegative
from ..notation.roots import maximum_over, norm, quotient, root
from ..notation.sharding import replicated
from ..notation.signal import Signal
from .cache_chunks import by_cache_chunks
from .spreading import from_batch, over_batch

Triple = tuple[float, float, float]
Coefficients = Literal["standard", "dion"] | Triple | Sequence[Triple]
"""a, b, c of every iteration, or of each in turn, or the name of such a list."""

QUINTIC: Triple = (3.4445, -4.7750, 2.0315)
"""Coefficients that bring singular values quickly to about (0.7, 1.2)."""

COEFFICIENTS: dict[str, Triple | tuple[Triple, ...]] = {
    "standard": QUINTIC,
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}
"""Coefficients by name."""

Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]


@checked()
def newton_schulz(
    matrix: Signal,
    steps: int = 5,
    coefficients: Coefficients = QUINTIC,
    eps: NonNegative = 1e-7,
    dtype: DType | None = None,
    preconditioning: Preconditioning = "frobenius",
) -> Signal:
    """Brings all singular values of each matrix near 1: an approximate U V^T.

    A function of signals.

        X <- a X + (b A + c A^2) X,  A = X X^H          for every a, b, c

    from X = M / (|M|_F + eps), or, with another preconditioning,

        spectral   X = M / (|M|_2 + eps)
        aol        X = D M,  D = diag(sum_j |A_ij|)^(-1/2),  A = M M^H
        schatten   X = M / |M M^H|_F^(1/2)

    of which the last two come nearer to 1 in as many steps.

    Args:
      matrix: a signal of matrices (further axes in front are batch axes).
      steps: iterations with the same coefficients.
      coefficients: one triple a, b, c; a sequence of them, one for each iteration, and `steps` is
        not used; or "standard" or "dion".
      eps: added to the norm; least sum of "aol", least norm of "schatten".
      dtype: in which it is computed; default the signal's own.
      preconditioning: see above.

    References:
      Jordan et al. 2024, Muon. Bernstein & Newhouse 2024, Old Optimizer, New Norm
      (arXiv 2409.20325). Ahn et al. 2025, Dion (arXiv 2504.05295). Boissin et al. 2025, Turbo-Muon
      (arXiv 2512.04632: aol). Grishina et al. 2025, Accelerating Newton-Schulz Iteration for
      Orthogonalization via Chebyshev-type Polynomials (arXiv 2506.10935: schatten).
    """
    triples = each_step(coefficients, steps)

    @by_cache_chunks
    def iterated(x: jax.Array, eps: float | jax.Array) -> jax.Array:
        tall = x.shape[-2] > x.shape[-1]
        x = _scaled(_transposed(x) if tall else x, preconditioning, eps)
        for a, b, c in triples:
            gram = x @ _transposed(x)
            x = a * x + (b * gram + c * gram @ gram) @ x
        return _transposed(x) if tall else x

    def orthogonalised(m: jax.Array, eps: float | jax.Array) -> jax.Array:
        x = replicated(m) if preconditioning == "spectral" else over_batch(m)
        return from_batch(iterated(x.astype(dtype or m.dtype), eps), m).astype(m.dtype)

    return lift(orthogonalised, "newton_schulz")(matrix, eps)


def each_step(coefficients: Coefficients, steps: int) -> tuple[Triple, ...]:
    """The coefficients of each iteration; FlowError for what is none."""
    if isinstance(coefficients, str):
        if coefficients not in COEFFICIENTS:
            names = ", ".join(map(repr, COEFFICIENTS))
            raise FlowError(
                f"newton_schulz: coefficients={coefficients!r} is no list; there are {names}"
            )
        coefficients = COEFFICIENTS[coefficients]
    listed: Any = tuple(coefficients)
    if len(listed) == 3 and not any(isinstance(entry, Sequence) for entry in listed):
        return (listed,) * steps
    if not listed or any(not isinstance(row, Sequence) or len(row) != 3 for row in listed):
        raise FlowError(
            f"newton_schulz: coefficients={coefficients!r} must be three numbers, or a sequence of "
            "three numbers each"
        )
    return listed


def _scaled(x: jax.Array, preconditioning: str, eps: float | jax.Array) -> jax.Array:
    """The matrices at which the iteration starts; its singular values are at most about 1."""
    if preconditioning == "frobenius":
        return _over(x, norm(x, axis=(-2, -1), keepdims=True) + eps)
    if preconditioning == "spectral":
        return _over(x, maximum_over(linalg.singular_values(x), axis=-1)[..., None, None] + eps)
    gram = x @ _transposed(x)
    if preconditioning == "schatten":
        return _over(x, root(jnp.maximum(norm(gram, axis=(-2, -1), keepdims=True), eps)))
    if preconditioning == "aol":
        return _over(x, root(jnp.maximum(jnp.sum(jnp.abs(gram), -1, keepdims=True), eps)))
    raise FlowError(f"newton_schulz: preconditioning={preconditioning!r} is not known")


def _over(x: jax.Array, size: jax.Array) -> jax.Array:
    return quotient(x, jnp.where(size == 0, 1, size))


def _transposed(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2).conj()
