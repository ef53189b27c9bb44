"""CDProxSGT: decentralised proximal descent with tracked gradients and compressed gossip."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    Fraction,
    Hyperparameter,
    NonNegative,
    Positive,
    Scalar,
    Signal,
    delay,
    flow,
    global_norm,
    is_neutral,
    lift,
    lift_tree,
    minimum,
    scheduled,
    transformation,
)
from ...transforms.compression import exchange, top_fraction
from ...transforms.compression.compressor import Weights
from ...transforms.notation import Portion
from ...transforms.notation.known import is_known
from ...transforms.notation.values import Leaves


@method(
    "Yan et al. 2023, Compressed Decentralized Proximal Stochastic Gradient Method for Nonconvex "
    "Composite Problems with Heterogeneous Data",
    arxiv="2302.14252",
    tags=("workers", "tracked-mean"),
    learning_rate=0.05,
    required={"mixing": ((1.0,),)},
)
@transformation()
def cd_prox_sgt(
    learning_rate: optax.ScalarOrSchedule,
    mixing: Weights,
    gamma_x: Fraction = 0.8,
    gamma_y: Fraction = 0.8,
    ratio: Portion | None = 0.4,
    l1: NonNegative = 0.0,
    prox: Callable[[Any, jax.Array], optax.Params] | None = None,
    max_norm: Positive | None = 10.0,
    mix_before_step: bool = True,
    axis_name: str | None = None,
) -> Flow:
    r"""Each worker has params of its own and speaks with its neighbours.

    Worker i of n, with weights :math:`W_{ij}` of the others, the estimates that all keep of it, and
    a compressor Q; everything but the params starts at 0:

    .. math::
        \tilde y_i &= y_i + g_i - g_i^{\text{last}}, \qquad
        \hat y_i \leftarrow \hat y_i + Q(\tilde y_i - \hat y_i), \qquad
        y_i \leftarrow \tilde y_i + \gamma_y \Bigl( \sum_j W_{ij} \hat y_j - \hat y_i \Bigr) \\
        \tilde x_i &= \operatorname{prox}(x_i - \eta y_i), \qquad
        \hat x_i \leftarrow \hat x_i + Q(\tilde x_i - \hat x_i), \qquad
        x_i \leftarrow \tilde x_i + \gamma_x \Bigl( \sum_j W_{ij} \hat x_j - \hat x_i \Bigr)

    The sum of all y is that of all gradients. Without compression (DProxSGT) trackers and params
    are mixed as they are. Inside `jax.shard_map` the params vary along the axis, under `jax.vmap`
    they are stacked.

    Args:
      learning_rate: eta; number or schedule.
      mixing: W, a doubly stochastic matrix (n, n), such as that of a ring with 1/3.
      gamma_x, gamma_y: shares of what mixing moves; too much of it diverges where compression is
        strong.
      ratio: share of each leaf's entries that Q sends, the largest; None: no compression.
      l1: lambda; the default prox shrinks every entry by eta lambda.
      prox: `(params, step size) -> params` in its place.
      max_norm: gradients are first scaled to a norm of no more; None: they are not.
      mix_before_step: False steps along the tracker before it is mixed.
      axis_name: the axis along which the workers lie; None: there is one.

    Returns:
      The optimizer; it needs `params`. Its state is six buffers of their size, without compression
      two.

    Raises:
      ValueError: for a hyper-parameter out of range, and weights that are no doubly stochastic
        matrix; in update, for an axis that is not there or of another length.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import cd_prox_sgt
      >>> even = jnp.full((2, 2), 0.5)
      >>> opt, x = cd_prox_sgt(0.5, even, ratio=None, axis_name="workers"), 0.0
      >>> step = lambda g: opt.update(g, opt.init(x), x)[0]
      >>> jax.jit(jax.vmap(step, axis_name="workers"))(jnp.array([1.0, 3.0])).tolist()
      [-1.0, -1.0]

    References:
      Yan et al. 2023 (arXiv 2302.14252); yonggui-yan/DProxSGT clips gradients and starts all
      estimates at 0, and so do we. Its uncompressed scripts step along the unmixed tracker.
    """
    check_mixing(mixing)

    def near(x: Signal, rate: Scalar) -> Signal:
        if prox is not None:
            return _called(prox)(x, rate)
        return x if is_neutral(l1) else _shrunk(x, rate * scheduled(l1))

    def gossip(x: Signal, gamma: Hyperparameter, name: str) -> Signal:
        if ratio is None:
            return exchange(x, _everything, axis_name, weights=mixing)[1]
        known, others = delay(x, 0.0, name=name), delay(x, 0.0, name=f"{name}_of_others")
        sent, mixed = exchange(x - known, top_fraction(ratio), axis_name, weights=mixing)
        around = others << others + mixed
        return x + scheduled(gamma) * (around - (known << known + sent))

    def step(g: Signal, params: Signal) -> Signal:
        rate = scheduled(learning_rate)
        if max_norm is not None:
            g = g * minimum(1.0, scheduled(max_norm) / (global_norm(g) + 1e-6))
        tracked, last = delay(params, 0.0, name="tracker"), delay(params, 0.0, name="last_gradient")
        raw = tracked + g - last
        last << g
        y = tracked << gossip(raw, gamma_y, "known_tracker")
        x = near(params - rate * (y if mix_before_step else raw), rate)
        return gossip(x, gamma_x, "known_params") - params

    return flow(step)


def _everything(tree: jax.Array) -> jax.Array:
    return tree


def _soft(x: jax.Array, threshold: float | jax.Array) -> jax.Array:
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


_shrunk = lift(_soft, "soft_threshold")


def _called(prox: Callable[[Any, jax.Array], optax.Params]) -> Callable[..., Signal]:
    """The user's function of trees as one of signals."""

    def near(tree: Leaves, rate: Any) -> Leaves:
        return Leaves.up_to(tree.treedef, prox(tree.tree(), rate))

    return lift_tree(near, "prox", out=0)


def check_mixing(mixing: Any) -> None:
    """Raises FlowError for what is no doubly stochastic matrix."""
    shape = np.shape(mixing)
    problem = "" if len(shape) == 2 and shape[0] == shape[1] > 0 else f"it has shape {shape}"
    if not problem and is_known(mixing):
        rows = np.asarray(mixing, float)
        sums = np.concatenate([rows.sum(1), rows.sum(0)])
        if not np.all(rows >= 0):
            problem = f"it has the entry {rows[~(rows >= 0)][0]}"
        elif not np.allclose(sums, 1, atol=1e-5):
            problem = f"its rows have the sums {sums[: len(rows)]}, its columns {sums[len(rows) :]}"
    if problem:
        raise FlowError(
            "cd_prox_sgt: mixing must be a doubly stochastic matrix, one row for each worker, with "
            f"entries from 0 on, rows and columns of sum 1; {problem}"
        )
