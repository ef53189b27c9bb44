"""The subspace of the largest eigenvalues of the Hessian, and what lies in it."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    Key,
    Signal,
    Size,
    checked,
    flow,
    lift_tree,
    transformation,
)
from ...transforms.curvature import krylov_basis
from ...transforms.notation import linalg
from ...transforms.notation.domains import Trees
from ...transforms.notation.roots import balanced, norm
from ...transforms.notation.values import Leaves
from ...transforms.trees.random import typed_key
from .vectors import OF_A_LOSS, LossOf, Params, check_real, dot, hessian_of, in_unit, wide

PAPER = "Schneider et al. 2024, Identifying Policy Gradient Subspaces"
ARXIV = "2401.06604"


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("measurement", "curvature", "noise"),
    kind="measurement",
    required=OF_A_LOSS,
)
@checked()
def hessian_subspace(
    value_fn: LossOf[Params],
    params: Annotated[Params, Trees()],
    k: Size = 10,
    iters: Size = 30,
    key: Key = 0,
) -> tuple[Any, Any]:
    r"""The k largest eigenvalues of the Hessian, and their eigenvectors, by Lanczos.

    .. math::
        H p_i = \lambda_i p_i, \qquad \lambda_1 \ge \dots \ge \lambda_k

    Args:
      value_fn: params -> loss.
      params: a tree of real arrays.
      k: how many; the largest, not those of largest magnitude.
      iters: steps of Lanczos, at least k: Hessian-vector products, and vectors that are kept.
      key: seed or key of the start vector.

    Returns:
      The eigenvalues (k,), falling, and the basis: a tree like the params whose leaves have a
      leading axis of k; the vectors are orthonormal as vectors of all params, their signs are
      arbitrary. Of a Hessian with fewer eigenvalues that differ, the last are NaN and 0.

    Raises:
      ValueError: for sizes below 1, `iters` below k or above the number of params.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import hessian_subspace
      >>> loss = lambda x: jnp.sum(jnp.array([1.0, 9.0, 4.0]) * x**2) / 2
      >>> values, basis = hessian_subspace(loss, jnp.zeros(3), k=1, iters=3)
      >>> values.round(3).tolist(), abs(basis).round(3).tolist()
      ([9.0], [[0.0, 1.0, 0.0]])

    References:
      Schneider et al. 2024, Identifying Policy Gradient Subspaces (arXiv 2401.06604). The authors'
      code was not examined.
    """
    product, flat = hessian_of("hessian_subspace", value_fn, params)
    if not k <= iters <= flat.size:
        raise FlowError(
            f"hessian_subspace: iters={iters} must be from k={k} to the {flat.size} params"
        )
    start = jax.random.normal(typed_key(key), flat.shape, flat.dtype)
    basis, matrix = krylov_basis(product, start, iters)
    # what the start vector does not reach is not among the eigenvalues
    reached = jnp.sum(basis**2, axis=1) > 0.5
    below = -4 * jnp.where(jnp.any(matrix != 0), norm(matrix), 1)
    values, vectors = linalg.eigh(matrix + jnp.diag(jnp.where(reached, 0, below)))
    values = jnp.where(values > below / 2, values, jnp.nan)
    vectors = jnp.matmul(vectors[:, : -k - 1 : -1].T, basis, precision="highest")
    _, unravel = ravel_pytree(wide(params))
    return values[: -k - 1 : -1], jax.vmap(unravel)(vectors)


def _coordinates(basis: optax.Params, vector: optax.Params) -> jax.Array:
    """The inner products of the k vectors of a basis with one vector, or with several."""
    k = len(jax.tree.leaves(basis)[0])
    rows = [x.reshape(k, -1) for x in jax.tree.leaves(wide(basis))]
    shapes = [jnp.shape(x)[1:] for x in jax.tree.leaves(basis)]
    others = jax.tree.leaves(wide(vector))
    columns = [
        y.reshape(*jnp.shape(y)[: jnp.ndim(y) - len(s)], -1)
        for y, s in zip(others, shapes, strict=True)
    ]
    products = [jnp.matmul(a, b.T, precision="highest") for a, b in zip(rows, columns, strict=True)]
    return balanced(products)


@checked()
def gradient_subspace_fraction(grad: optax.Updates, basis: optax.Params) -> jax.Array:
    r"""The share of a gradient that lies in a subspace: :math:`|P^T g|^2 / |g|^2`.

    Args:
      grad: a tree.
      basis: of `hessian_subspace`, orthonormal.

    Returns:
      A scalar in [0, 1]; 0 for a gradient of 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import gradient_subspace_fraction
      >>> float(gradient_subspace_fraction(jnp.array([3.0, 1.0]), jnp.array([[1.0, 0.0]])))
      0.8999999761581421

    References:
      Schneider et al. 2024, Identifying Policy Gradient Subspaces (arXiv 2401.06604).
    """
    grad = in_unit(grad)
    whole = dot(grad, grad)
    inside = jnp.sum(_coordinates(basis, grad) ** 2)
    return jnp.where(whole > 0, inside / jnp.where(whole > 0, whole, 1), 0)


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("measurement",),
    kind="measurement",
    required={"basis_a": np.eye(2), "basis_b": np.eye(2)},
)
@checked()
def subspace_overlap(basis_a: optax.Params, basis_b: optax.Params) -> Any:
    r"""How much of one subspace lies in another.

    .. math::
        \frac{1}{k} \sum_{i=1}^{k} |P_a^T b_i|^2

    Args:
      basis_a: of `hessian_subspace`, orthonormal.
      basis_b: another, such as that of a later step.

    Returns:
      A scalar in [0, 1]: 1 for the same subspace, whatever its vectors, about k / n for random
      ones.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import subspace_overlap
      >>> plane, line = jnp.eye(3)[:2], jnp.array([[0.0, 0.6, 0.8]])
      >>> round(float(subspace_overlap(plane, line)), 4)
      0.36

    References:
      Schneider et al. 2024, Identifying Policy Gradient Subspaces (arXiv 2401.06604).
    """
    for name, basis in (("basis_a", basis_a), ("basis_b", basis_b)):
        check_real("subspace_overlap", name, basis)
    products = _coordinates(basis_a, basis_b)
    return jnp.sum(products**2) / products.shape[1]


@transformation()
def project_to_subspace(basis: optax.Params) -> Flow:
    r"""Keeps of the gradient what lies in a subspace: :math:`P P^T g`.

    A transformation to stand in front of any optimizer: it then moves in the subspace alone.

    Args:
      basis: of `hessian_subspace`, orthonormal, a tree like the params whose leaves have a leading
        axis of k.

    Returns:
      The transformation, without state.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import project_to_subspace
      >>> tx = project_to_subspace(jnp.array([[0.6, 0.8]]))
      >>> u, _ = tx.update(jnp.array([1.0, 0.0]), tx.init(jnp.zeros(2)))
      >>> [round(float(x), 2) for x in u]
      [0.36, 0.48]

    References:
      Schneider et al. 2024, Identifying Policy Gradient Subspaces (arXiv 2401.06604).
    """

    def projected(g: Leaves) -> Leaves:
        rows = Leaves.up_to(g.treedef, basis)
        coordinates = _coordinates(rows.tree(), g.tree())
        return g.map(
            lambda x, p: jnp.tensordot(coordinates.astype(x.dtype), p.astype(x.dtype), axes=1), rows
        )

    def step(g: Signal) -> Signal:
        return lift_tree(projected, "project_to_subspace", out=0)(g)

    return flow(step)
