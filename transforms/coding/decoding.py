"""From the gradients of parts to what a worker sends, and from that to the whole gradient."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from ..notation.checks import checked
from ..notation.errors import FlowError
from ..notation.known import is_known
from ..notation.rows import sum_of_rows
from ..workers import axis


@checked()
def encode(partial_grads: optax.Params, row: Sequence[float] | jax.Array) -> optax.Params:
    """What a worker sends: the sum of its parts' gradients with its coefficients.

    A function of arrays.

        l_i = sum_j B[i, j] g_j

    Args:
      partial_grads: a tree whose arrays have the parts on the leading axis: those of the worker, or
        all.
      row: the coefficients of these parts: `code[worker, assigned_parts(code, worker)]`.

    Returns:
      A tree of one gradient.

    Raises:
      FlowError: where there are not as many coefficients as parts.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.coding import encode
      >>> encode({"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, [1.0, -1.0])["w"].tolist()
      [-2.0, -2.0]
    """
    shares = jnp.asarray(row)

    def summed(parts: jax.Array) -> jax.Array:
        if shares.ndim != 1 or jnp.shape(parts)[:1] != shares.shape:
            raise FlowError(
                f"encode: row of shape {shares.shape} must have a coefficient for each of the "
                f"parts on the leading axis; an array has shape {jnp.shape(parts)}"
            )
        return jnp.tensordot(_fitted(shares, parts), parts, axes=1, precision="highest")

    return jax.tree.map(summed, partial_grads)


@checked()
def decode_weights(code: ArrayLike, survivors: Sequence[Any] | np.ndarray) -> np.ndarray:
    """With which weights what the survivors sent sums to the whole gradient.

    A function of numbers.

        a B = (1, ..., 1),    a_i = 0 where worker i did not answer

    It is solved in float64, outside jit; the weights go into a compiled step as an array.

    Args:
      code: B.
      survivors: one boolean for each worker, whether it answered.

    Returns:
      a, a NumPy array of n numbers in float64, for `decode`.

    Raises:
      FlowError: where the code does not make up for so many stragglers, or not for these.

    Example:
      >>> from gradchain.transforms.coding import decode_weights, repetition_code
      >>> decode_weights(repetition_code(4, 1), [False, True, True, False]).round(6).tolist()
      [0.0, 1.0, 1.0, 0.0]
    """
    if not is_known(survivors):
        raise FlowError("decode_weights: survivors must be known: call it outside jit")
    rows, answered = np.asarray(code, np.float64), np.asarray(survivors, bool)
    if answered.shape != rows.shape[:1]:
        raise FlowError(
            f"decode_weights: survivors of shape {answered.shape} must be a boolean for each of "
            f"the {len(rows)} workers"
        )
    weights, ones = np.zeros(len(rows)), np.ones(rows.shape[1])
    weights[answered] = np.linalg.lstsq(rows[answered].T, ones, rcond=None)[0]
    if not np.allclose(weights @ rows, ones, atol=1e-6):
        raise FlowError(
            f"decode_weights: the {answered.sum()} survivors of {len(rows)} workers do not "
            "determine the gradient; the code makes up for fewer stragglers"
        )
    return weights


@checked()
def decode(
    coded: optax.Params,
    weights: Sequence[float] | np.ndarray | jax.Array,
    axis_name: str | None = None,
) -> optax.Params:
    """The sum of the gradients of all parts; divide it by the number of examples, or of parts.

    A function of arrays.

        sum_j g_j = sum_i a_i l_i

    What a worker of weight 0 sent is not read, whatever it holds.

    Args:
      coded: what `encode` gave: a tree of arrays with the workers on the leading axis; with
        `axis_name`, this worker's own.
      weights: a, of `decode_weights`.
      axis_name: the axis along which the workers lie.

    Returns:
      A tree of one gradient, the same on all workers.

    Raises:
      FlowError: for an axis that is not there, or weights of another number of workers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.coding import decode
      >>> decode(jnp.array([[1.0, 2.0], [jnp.nan, jnp.nan]]), [3.0, 0.0]).tolist()
      [3.0, 6.0]
    """
    numbers = jnp.asarray(weights)
    axis.require_axis("decode", axis_name)
    count = None if axis_name is None else axis.count_workers(axis_name)

    def weighted(x: jax.Array) -> jax.Array:
        workers = jnp.shape(x)[:1] if count is None else (count,)
        if numbers.shape != workers:
            raise FlowError(
                f"decode: weights of shape {numbers.shape} must be one for each worker, {workers}"
            )
        own = _fitted(numbers if count is None else numbers[axis.worker_index(axis_name)], x)
        own = own.reshape(own.shape + (1,) * (x.ndim - own.ndim))
        return jnp.where(own == 0, jnp.zeros_like(x), own * x)

    terms = jax.tree.map(weighted, coded)
    if axis_name is None:
        return jax.tree.map(sum_of_rows, terms)
    return axis.total(terms, axis_name)


def _fitted(numbers: jax.Array, like: jax.Array) -> jax.Array:
    return numbers.astype(jnp.finfo(jnp.result_type(like)).dtype)
