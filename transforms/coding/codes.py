"""Which parts of a batch each worker computes, and with which coefficients it sums them."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ..notation.checks import checked
from ..notation.errors import FlowError
from ..notation.hyperparameters import Key, Length, Size
from ..trees.random import typed_key


@checked()
def cyclic_code(num_workers: Size, num_stragglers: Length, key: Key = 0) -> np.ndarray:
    """A code in which worker i sums the parts i, i + 1, ..., i + s, counted modulo n.

    A function of numbers.

    B, n x n, has the kernel of a random matrix H, s x n, whose columns sum to zero, in its rows:

        B[i, i] = 1,    H B[i] = 0,    B[i] = 0 outside of i, ..., i + s

    so that the rows of any n - s workers span the vector of ones. It becomes ill-conditioned where
    s is large: see `repetition_code`.

    Args:
      num_workers: n, workers and parts of the batch.
      num_stragglers: s, how many workers may fail to answer; each computes s + 1 parts.
      key: seed or key of H.

    Returns:
      B, a NumPy array in float64; row i is worker i's.

    Raises:
      FlowError: where no worker would be left, or one is to compute more than all parts.

    Example:
      >>> from gradchain.transforms.coding import cyclic_code
      >>> (cyclic_code(4, 1) != 0).astype(int).tolist()
      [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]

    References:
      Tandon et al. 2017, Gradient Coding: Avoiding Stragglers in Distributed Learning (arXiv
      1612.03301), Algorithm 2.
    """
    _check_stragglers("cyclic_code", num_workers, num_stragglers)
    n, s = num_workers, num_stragglers
    H = np.asarray(jax.random.normal(typed_key(key), (s, n), jnp.float32), np.float64)
    H -= H.mean(axis=1, keepdims=True)
    code = np.zeros((n, n))
    for i in range(n):
        others = (i + 1 + np.arange(s)) % n
        code[i, i] = 1
        code[i, others] = np.linalg.solve(H[:, others], -H[:, i])
    return code


@checked()
def repetition_code(num_workers: Size, num_stragglers: Length) -> np.ndarray:
    """A code in which groups of s + 1 workers sum the same s + 1 parts.

    A function of numbers.

    Args:
      num_workers: n, workers and parts of the batch, a multiple of s + 1.
      num_stragglers: s, how many workers may fail to answer.

    Returns:
      B, n x n, of zeros and ones in float64; row i is worker i's.

    Raises:
      FlowError: where the groups do not come out even.

    Example:
      >>> from gradchain.transforms.coding import repetition_code
      >>> repetition_code(4, 1).astype(int).tolist()
      [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]

    References:
      Tandon et al. 2017, Gradient Coding: Avoiding Stragglers in Distributed Learning (arXiv
      1612.03301), fractional repetition.
    """
    _check_stragglers("repetition_code", num_workers, num_stragglers)
    size = num_stragglers + 1
    if num_workers % size:
        raise FlowError(
            f"repetition_code: num_workers={num_workers} must be a multiple of "
            f"num_stragglers + 1 = {size}"
        )
    group = np.arange(num_workers) // size
    return (group[:, None] == group).astype(np.float64)


def _check_stragglers(label: str, num_workers: int, num_stragglers: int) -> None:
    if num_stragglers >= num_workers:
        raise FlowError(
            f"{label}: num_stragglers={num_stragglers} must be below num_workers={num_workers}"
        )


@checked()
def assigned_parts(code: ArrayLike, worker: int) -> np.ndarray:
    """The parts of the batch that a worker computes, in ascending order.

    A function of numbers.

    Args:
      code: B.
      worker: its number, from 0.

    Example:
      >>> from gradchain.transforms.coding import assigned_parts, cyclic_code
      >>> assigned_parts(cyclic_code(4, 1), 3).tolist()
      [0, 3]
    """
    return np.flatnonzero(np.asarray(code)[worker])
