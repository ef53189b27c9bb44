"""EControl."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Mask,
    NonNegative,
    Size,
    chain,
    decay_weights,
    handed_on,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.compression import compress_differences, top_k
from ...transforms.compression.compressor import Compression


@transformation()
def scale_by_econtrol(
    eta: NonNegative = 0.1,
    k: Size = 1,
    init: Literal["full", "zero"] = "full",
    per_leaf: bool = False,
    compressor: Compression | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""EF21 with a controlled share of the accumulated error in every message.

    Worker i of n, with gradient g_i, estimate h_i and error e_i, which starts at 0:

    .. math::
        D_i &= C(\eta e_i + g_i - h_i) \\
        e_i &\leftarrow e_i + g_i - h_i - D_i, \qquad h_i \leftarrow h_i + D_i, \qquad
        u = \frac 1 n \sum_i h_i

    The error is the sum of all differences between gradients and new estimates.

    Args:
      eta: share of the error; theory asks for the contraction of C over 400, 1e-3 to 1e-1 is used.
        With 0 it is EF21. Near 1 it is as unstable as error compensation.
      k: entries that are sent, of the default compressor, top-k.
      init: "full" sends the first gradient as it is; "zero" compresses it as the others.
      per_leaf: top-k of every leaf; else of the whole tree.
      compressor: C in place of top-k, see `scale_by_ef21`.
      axis_name: the axis along which the workers lie; None: there is one.

    References:
      Gao, Islamov & Stich 2024, EControl: Fast Distributed Optimization with Compression and Error
      Control (arXiv 2311.05645). There is no official code; this rests on the paper alone.
    """
    chosen = top_k(k, per_leaf=per_leaf) if compressor is None else compressor
    return compress_differences(chosen, axis_name, start=init, error_weight=eta)


@method(
    "Gao et al. 2024, EControl: Fast Distributed Optimization with Compression and Error Control",
    arxiv="2311.05645",
    tags=("workers",),
    learning_rate=0.05,
    small_model={"k": 8},
)
@transformation()
def econtrol(
    learning_rate: optax.ScalarOrSchedule,
    eta: NonNegative = 0.1,
    k: Size = 1,
    init: Literal["full", "zero"] = "full",
    per_leaf: bool = False,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    compressor: Compression | None = None,
    axis_name: str | None = None,
) -> Flow:
    """EControl; the rule is that of `scale_by_econtrol`.

    Each worker passes its own gradient, inside `jax.shard_map` over a mesh with the axis or under
    `jax.vmap` with a name for it; the updates are the same on all.

    Args:
      learning_rate: number or schedule, outside the memories.
      eta, k, init, per_leaf, compressor, axis_name: see `scale_by_econtrol`.
      weight_decay: added to the direction, times the params.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; its state is three buffers of the params' size: estimate and error of the
      worker, and the mean of the estimates.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import econtrol
      >>> opt, x = econtrol(1.0, eta=1.0, k=1, init="zero"), jnp.array([2.0, 3.0])
      >>> first, state = opt.update(x, opt.init(x), x)
      >>> second, state = opt.update(x, state, x)
      >>> first.tolist(), second.tolist()
      ([-0.0, -3.0], [-4.0, -3.0])
    """
    return chain(
        handed_on(scale_by_econtrol),
        decay_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )
