"""The spectrum of the Hessian, by stochastic Lanczos quadrature."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ...registry import method
from ...transforms import Key, Size, checked
from ...transforms.curvature import lanczos
from ...transforms.notation.domains import Trees
from ...transforms.notation.known import each
from ...transforms.trees.random import typed_key
from .vectors import OF_A_LOSS, LossOf, Params, hessian_of


class Spectrum(NamedTuple):
    """A quadrature of the density of eigenvalues.

    Attributes:
      nodes: (samples, steps); the outer ones are near the outer eigenvalues.
      weights: (samples, steps); those of a sample add up to 1.
    """

    nodes: jax.Array
    weights: jax.Array

    def density(self, at: Any, width: Any) -> Any:
        """The density at some points (m,), each node a Gaussian of that width."""
        gap = (jnp.asarray(at)[:, None, None] - self.nodes) / width
        bells = jnp.exp(-0.5 * gap**2) / (width * jnp.sqrt(2 * jnp.pi))
        return jnp.sum(self.weights * bells, axis=(1, 2)) / len(self.nodes)


@method(
    "Ghorbani, Krishnan & Xiao 2019, An Investigation into Neural Net Optimization via Hessian "
    "Eigenvalue Density",
    arxiv="1901.10159",
    tags=("measurement", "curvature", "noise"),
    kind="measurement",
    required=OF_A_LOSS,
)
@checked()
def hessian_spectrum(
    value_fn: LossOf[Params],
    params: Annotated[Params, Trees()],
    num_steps: Size = 20,
    num_samples: Size = 1,
    key: Key = 0,
) -> Spectrum:
    r"""The density of the eigenvalues of the Hessian, without the Hessian.

    .. math::
        \frac{1}{n} \sum_i \delta(\lambda - \lambda_i) \approx
        \frac{1}{s} \sum_{j=1}^{s} \sum_{k=1}^{m} w_{jk}\, \delta(\lambda - \theta_{jk})

    For each of s Gaussian start vectors, m steps of Lanczos give a tridiagonal matrix; theta are
    its eigenvalues and w the squares of the first entries of its eigenvectors. All moments up to
    the power 2 m - 1 are then those of the start vector. It costs s m Hessian-vector products, and
    keeps m vectors like the params.

    Args:
      value_fn: params -> loss.
      params: a tree of real arrays.
      num_steps: m.
      num_samples: s.
      key: seed or key of the start vectors.

    Returns:
      A `Spectrum`.

    Raises:
      ValueError: for sizes below 1, or a loss that is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import hessian_spectrum
      >>> loss = lambda x: jnp.sum(jnp.array([1.0, 1.0, 5.0]) * x**2) / 2
      >>> found = hessian_spectrum(loss, jnp.zeros(3), num_steps=2)
      >>> found.nodes.round(3).tolist()
      [[1.0, 5.0]]

    References:
      Ghorbani, Krishnan & Xiao 2019, An Investigation into Neural Net Optimization via Hessian
      Eigenvalue Density (arXiv 1901.10159). Every vector is orthogonalised against all before, as
      there.
    """
    product, flat = hessian_of("hessian_spectrum", value_fn, params)

    def quadrature(fresh: jax.Array) -> tuple[jax.Array, jax.Array]:
        start = jax.random.normal(fresh, flat.shape, flat.dtype)
        return lanczos(product, start, num_steps)

    return Spectrum(*each(quadrature, jax.random.split(typed_key(key), num_samples), flat))
