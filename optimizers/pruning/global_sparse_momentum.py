"""GSM: global sparse momentum SGD."""

import math
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Signal,
    absolute,
    chain,
    checked,
    decay_weights,
    flow,
    leaf_where,
    lift_tree,
    merge,
    scale_by_learning_rate,
    split,
    trace,
    transformation,
)
from ...transforms.notation.domains import Interval
from ...transforms.notation.hyperparameters import Hyperparameter
from ...transforms.notation.ordering import kth_largest
from ...transforms.notation.sharding import replicated
from ...transforms.notation.values import Leaves

competing = leaf_where(lambda leaf: leaf.ndim in (2, 4))
"""Selects matrices and the kernels of convolutions."""

Share = Annotated[float, Interval(0.0, 1.0)]
Density = Annotated[Hyperparameter, Interval(0.0, 1.0, low_open=True)]
"""The share of entries that stay, in (0, 1]."""


@transformation()
def keep_salient(density: Density, sparse: Mask | None = None) -> Flow:
    """Gradients of the most salient entries of all competing leaves together, 0 for the others.

        T = |x g|,   threshold = the floor(density N)-th largest T of all N competing entries
        g where T >= threshold, else 0

    Args:
      density: share of entries that keep their gradient.
      sparse: the leaves that compete: a tree of booleans, or a function of the params; default
        those with two or four dimensions. The others keep their gradient.
    """

    def step(g: Signal, params: Signal) -> Signal:
        select = competing if sparse is None else sparse
        part, others = split(g, select)
        weights, _ = split(params, select)
        return merge(_kept(part, absolute(weights * part), density), others)

    return flow(step)


def _kept_of(g: Leaves, saliency: Leaves, density: float | jax.Array) -> Leaves:
    every = [replicated(leaf).ravel() for leaf in saliency.present()]
    if not sum(leaf.size for leaf in every):
        return g
    joined = jnp.concatenate(every)
    # In float64 on the host where the density is a number: products near integers must not flip.
    exact = isinstance(density, int | float)
    count = math.floor(density * joined.size) if exact else jnp.floor(density * joined.size)
    place = jnp.clip(jnp.asarray(count, jnp.int32) - 1, 0)
    threshold = jnp.where(jnp.asarray(count) > 0, kth_largest(joined, place), jnp.inf)
    return g.map(lambda x, t: jnp.where(t >= threshold.astype(t.dtype), x, 0), saliency)


_kept = lift_tree(_kept_of, "keep_salient", out=0)


@checked()
def magnitude_mask(
    params: optax.Params, density: Share, sparse: Mask | None = None
) -> optax.Params:
    """The final cut: 1 at the largest entries of all competing leaves together, else 0.

    Kept are those of at least the magnitude at place floor(N (1 - density)) in ascending order.

    Args:
      params: the trained params.
      density: share of entries that stay.
      sparse: the leaves that compete, as in `global_sparse_momentum`; the others stay whole.

    Returns:
      A tree of 0 and 1; multiply the params by it.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import magnitude_mask
      >>> magnitude_mask(jnp.array([[1.0, -4.0], [3.0, 2.0]]), density=0.5).tolist()
      [[0.0, 1.0], [1.0, 0.0]]
    """
    chosen = sparse(params) if callable(sparse) else sparse
    if chosen is None:
        chosen = jax.tree.map(lambda leaf: jnp.ndim(leaf) in (2, 4), params)
    chosen = jax.tree.map(lambda flag, part: jax.tree.map(lambda _: flag, part), chosen, params)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True)
    every = jnp.concatenate([jnp.abs(x).ravel() for x, flag in pairs if flag])
    place = min(math.floor(every.size * (1 - density)), every.size - 1)
    least = kth_largest(every, every.size - 1 - place)
    return jax.tree.map(
        lambda x, flag: (jnp.abs(x) >= least).astype(x.dtype) if flag else jnp.ones_like(x),
        params,
        chosen,
    )


@method(
    "Ding et al. 2019, Global Sparse Momentum SGD for Pruning Very Deep Neural Networks",
    arxiv="1909.12778",
    tags=("momentum",),
    learning_rate=0.05,
    required={"density": 0.5},
)
@transformation()
def global_sparse_momentum(
    learning_rate: optax.ScalarOrSchedule,
    density: Density,
    momentum: Decay = 0.98,
    nesterov: bool = False,
    weight_decay: NonNegative = 5e-4,
    decay_1d: NonNegative | None = None,
    sparse: Mask | None = None,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Momentum in which only the most salient entries feel the loss; the others decay to zero.

        T = |x g|,   B = T >= the floor(density N)-th largest T of all N competing entries
        z_t = momentum z_{t-1} + B g + weight_decay x
        x <- x - lr z_t,    x - lr (B g + weight_decay x + momentum z_t)  if nesterov

    The mask is chosen anew at every step, over all leaves at once, so the leaves find their own
    shares. After training `magnitude_mask` cuts the rest without loss. Ties at the threshold keep
    more; an entry at exactly zero has no saliency.

    Args:
      learning_rate: lr; number or schedule.
      density: one over the compression ratio, in (0, 1].
      momentum: undamped; large, so that passive entries decay within the run.
      nesterov: look ahead along the buffer.
      weight_decay: on every entry, in the buffer, not in the saliency.
      decay_1d: that of the leaves that do not compete; default the same.
      sparse: the leaves that compete: a tree of booleans, or a function of the params; default
        those with two or four dimensions.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype: storage of the momentum; default at least float32.

    Returns:
      The optimizer; `update` needs `params`. Its state is the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import global_sparse_momentum
      >>> opt = global_sparse_momentum(1.0, density=0.5, weight_decay=0.0)
      >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> (-opt.update(jnp.ones((2, 2)), opt.init(x), x)[0]).tolist()
      [[0.0, 0.0], [1.0, 1.0]]

    References:
      Ding et al. 2019 (arXiv 1909.12778); DingXiaoH/GSM-SGD, where 3-D leaves do not compete.
    """

    def decayed(g: Signal) -> Signal:
        if decay_1d is None:
            return g >> decay_weights(weight_decay, mask=mask)
        part, others = split(g, competing if sparse is None else sparse)
        return merge(
            part >> decay_weights(weight_decay, mask=mask),
            others >> decay_weights(decay_1d, mask=mask),
        )

    return chain(
        keep_salient(density, sparse),
        flow(decayed),
        trace(momentum, nesterov),
        scale_by_learning_rate(learning_rate),
    )
