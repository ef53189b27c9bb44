"""Trace and Frobenius norm of the Hessian, by probes."""

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import Key, Size, checked
from ...transforms.notation.domains import Trees
from ...transforms.notation.known import each
from ...transforms.notation.roots import norm
from ...transforms.trees.random import typed_key
from .vectors import OF_A_LOSS, LossOf, Params, hessian_of

PAPER = (
    "Wu & Su 2023, The Implicit Regularization of Dynamical Stability in Stochastic Gradient "
    "Descent"
)
ARXIV = "2305.17490"


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("measurement", "curvature", "noise"),
    kind="measurement",
    required=OF_A_LOSS,
)
@checked()
def hessian_trace(
    value_fn: LossOf[Params],
    params: Annotated[Params, Trees()],
    num_samples: Size = 10,
    key: Key = 0,
) -> Any:
    r"""Hutchinson's estimate of the trace of the Hessian.

    .. math::
        \mathrm{tr}(H) \approx \frac{1}{n} \sum_j u_j^T H u_j

    with random signs u.

    Args:
      value_fn: params -> loss.
      params: a tree of real arrays.
      num_samples: probes, a Hessian-vector product each.
      key: seed or key of the probes.

    Returns:
      A scalar.

    Raises:
      ValueError: for fewer probes than one, or a loss that is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import hessian_trace
      >>> float(hessian_trace(lambda x: jnp.sum(jnp.array([1.0, 5.0]) * x**2) / 2, jnp.ones(2)))
      6.0

    References:
      Wu & Su 2023 (arXiv 2305.17490), in which the noise of SGD bounds it at points that are
      stable; Hutchinson 1989, A stochastic estimator of the trace of the influence matrix.
    """
    product, flat = hessian_of("hessian_trace", value_fn, params)

    def probed(fresh: jax.Array) -> jax.Array:
        u = jax.random.rademacher(fresh, flat.shape, flat.dtype)
        return jnp.sum(u * product(u))

    return jnp.mean(each(probed, jax.random.split(typed_key(key), num_samples), flat))


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("measurement", "curvature", "noise"),
    kind="measurement",
    required=OF_A_LOSS,
)
@checked()
def hessian_frobenius(
    value_fn: LossOf[Params],
    params: Annotated[Params, Trees()],
    num_samples: Size = 10,
    key: Key = 0,
) -> Any:
    r"""The Frobenius norm of the Hessian, by probes.

    .. math::
        \|H\|_F \approx \sqrt{\frac{1}{n} \sum_j |H u_j|^2}

    with random signs u.

    Args:
      value_fn, params, num_samples, key: see `hessian_trace`.

    Returns:
      A scalar; its square is an unbiased estimate.

    Raises:
      ValueError: for fewer probes than one, or a loss that is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import hessian_frobenius
      >>> float(hessian_frobenius(lambda x: jnp.sum(jnp.array([3.0, 4.0]) * x**2) / 2, jnp.ones(2)))
      5.0

    References:
      Wu & Su 2023 (arXiv 2305.17490).
    """
    product, flat = hessian_of("hessian_frobenius", value_fn, params)

    def probed(fresh: jax.Array) -> jax.Array:
        return norm(product(jax.random.rademacher(fresh, flat.shape, flat.dtype)))

    lengths = each(probed, jax.random.split(typed_key(key), num_samples), flat)
    return norm(lengths / math.sqrt(num_samples))
