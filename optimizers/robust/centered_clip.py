"""Centered clipping."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import PositiveConstant, Size
from ...transforms.notation.checks import checked
from ...transforms.notation.known import repeat
from ...transforms.notation.rows import sum_of_rows
from .rows import Rows, along


@method(
    "Karimireddy et al. 2021, Learning from History for Byzantine Robust Optimization",
    arxiv="2012.10333",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
    required={"clip_threshold": 1.0},
)
@checked()
def centered_clip(clip_threshold: PositiveConstant, num_iters: Size = 3) -> Callable[..., Any]:
    r"""From the last result, the mean of what the gradients add to it, each clipped.

    .. math::
        v \leftarrow v + \frac 1 n \sum_i (x_i - v) \min\Bigl(1, \frac{\tau}{\|x_i - v\|}\Bigr)

    with the norm over all leaves, some times over.

    A worker moves the result by no more than tau / n in each turn, whatever it sends; one whose
    gradient is not finite does not.

    Args:
      clip_threshold: tau.
      num_iters: how many times over.

    Returns:
      The rule: a function from a stacked tree, and a tree `previous` to start from, to a tree.
      Without `previous` it starts from 0. Behind `aggregate` and `robust_aggregate` it starts from
      its last result.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import centered_clip
      >>> rule = centered_clip(1.0, num_iters=1)
      >>> rule(jnp.array([[1.0], [2.0], [3.0], [99.0]]), previous=jnp.array([2.0])).tolist()
      [2.25]

    References:
      Karimireddy et al. 2021 (arXiv 2012.10333).
    """

    def rule(stacked: optax.Params, previous: optax.Params | None = None) -> optax.Params:
        rows = Rows.of("centered_clip", stacked)

        def moved(_: int | jax.Array, v: list[jax.Array]) -> list[jax.Array]:
            distances = rows.distances_to(v)
            far = distances > clip_threshold
            factors = jnp.where(far, clip_threshold / jnp.where(far, distances, 1), 1)
            shares = jnp.where(rows.finite, factors, 0) / len(rows)
            pairs = zip(rows.leaves, v, strict=True)
            return [y + sum_of_rows(_share_of(shares, x) * (x - y[None])) for x, y in pairs]

        return rows.tree(repeat(num_iters, moved, _started(rows, previous)))

    return rule


def _share_of(shares: jax.Array, x: jax.Array) -> jax.Array:
    return along(shares, x).astype(jnp.finfo(x.dtype).dtype)


def _started(rows: Rows, previous: optax.Params | None) -> list[jax.Array]:
    if previous is None:
        return [jnp.zeros_like(x[0]) for x in rows.leaves]
    given = rows.treedef.flatten_up_to(previous)
    return [jax.numpy.asarray(y, x.dtype) for x, y in zip(rows.leaves, given, strict=True)]
