"""Sparse momentum: sparse training whose weights are pruned and regrown by the momentum."""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    FlowError,
    Fraction,
    Hyperparameter,
    Key,
    Mask,
    NonNegative,
    Period,
    Signal,
    absolute,
    debias,
    debiased_root,
    decay_weights,
    delay,
    ema,
    flow,
    handed_on,
    leaf_where,
    merge,
    named,
    scheduled,
    split,
    sqrt,
    square,
    step_count,
    trace,
    transformation,
    where,
)
from ...transforms.accumulate import with_momentum
from ...transforms.notation.hyperparameters import Portion
from ...transforms.notation.signal import Delay
from .regrowth import (
    Redistribution,
    falling_rate,
    first_mask,
    linear_rate,
    missing_entries,
    regrown,
)

RateDecay = Literal["cosine", "linear"]

kernels = leaf_where(lambda leaf: leaf.ndim >= 2)
"""Selects the leaves with two dimensions or more."""


@transformation()
def sparse_training(
    inner: optax.GradientTransformation,
    momentum_fn: Callable[[Any], optax.Params],
    density: Portion = 0.05,
    *,
    update_interval: Period,
    prune_decay_steps: Period,
    prune_rate: Fraction = 0.5,
    prune_rate_decay: RateDecay = "cosine",
    prune_rate_end: Fraction = 0.005,
    redistribution: Redistribution = "momentum",
    key: Key = 0,
    init_mask: optax.Params | None = None,
    sparse: Mask | None = None,
) -> Flow:
    """Keeps an optimizer's params sparse: prunes the small, regrows where the momentum is large.

        x <- mask (x + u),   u the finished update of the inner optimizer on dense gradients

    and at every `update_interval`-th step, with S the momentum and p_t the rate of pruning:

        share of a leaf    c = mean |S| over its active entries, all shares together 1
        prune              the ceil(p_t n) smallest |x| of the n active entries of each leaf
        grow               as many entries as were pruned in all, and as an earlier step left over:
                           the share c in each leaf, at the inactive entries of largest |S|

    A leaf that is nearly dense and would grow is pruned less, what exceeds the room of a leaf goes
    to the others, and what rounding leaves of the budget is handed to the next change. The rate of
    pruning falls from `prune_rate` to `prune_rate_end` by a cosine, or linearly to 0. Entries start
    active at random; the inner optimizer sees the params times the mask, in the first step too.

    Args:
      inner: a whole optimizer, learning rate included, that is never shown masked gradients.
      momentum_fn: from its state to the momentum, a tree like the params.
      density: share of all sparse leaves' entries that are active, in (0, 1].
      update_interval: steps from one change of the mask to the next, an epoch's in the paper.
      prune_decay_steps: steps in which the rate of pruning falls.
      prune_rate: share of the active entries that is pruned at first.
      prune_rate_decay: "cosine" or "linear".
      prune_rate_end: where the cosine ends.
      redistribution: what a leaf's share is measured by: "momentum", "magnitude" of the active
        entries, number of "nonzeros", or "none" for the number of its entries.
      key: seed or key of the first mask.
      init_mask: the first mask: a tree like the params, None at dense leaves.
      sparse: the leaves that are sparse: a tree of booleans, or a function of the params; default
        those with two dimensions or more.

    Raises:
      ValueError: for a hyper-parameter out of range.

    References:
      Dettmers & Zettlemoyer 2019, Sparse Networks from Scratch: Faster Training without Losing
      Performance (arXiv 1907.04840). TimDettmers/sparse_learning has the cap and what is carried
      over from one change to the next, which the paper has not.
    """

    def step(g: Signal, params: Signal) -> Signal:
        active, shown = handed_on(_masked, params=params)
        both = g >> with_momentum(inner, momentum_fn, shown)
        return handed_on(_sparse_steps, u=both[0], saliency=both[1], params=params, active=active)

    return flow(step)


def _masked(
    params: Signal, *, density: float, key: Key, init_mask: optax.Params | None, sparse: Any
) -> tuple[Delay, Signal]:
    """The mask, and the params times it, which those of the first step are not yet."""
    if density == 0:
        raise FlowError("sparse_momentum: density=0 must be in (0, 1]: nothing would be trained")
    x, others = split(params, kernels if sparse is None else sparse)
    start = first_mask(density, key, init_mask)
    active = delay(x != x, start=start, name="mask", dtype=jnp.int8)
    return active, merge(where(active, x, 0.0), others)


def _sparse_steps(
    u: Signal,
    saliency: Signal,
    params: Signal,
    active: Delay,
    *,
    density: float,
    update_interval: Period,
    prune_decay_steps: Period,
    prune_rate: Hyperparameter,
    prune_rate_decay: RateDecay,
    prune_rate_end: Hyperparameter,
    redistribution: Redistribution,
    sparse: Any,
) -> Signal:
    """The steps to where params are that move by u and stay sparse."""
    select = kernels if sparse is None else sparse
    (x, _), (s, _), (move, others) = (split(signal, select) for signal in (params, saliency, u))
    t = step_count()
    due = t % update_interval == 0
    rate = falling_rate(t, prune_decay_steps, scheduled(prune_rate), scheduled(prune_rate_end))
    if prune_rate_decay == "linear":
        rate = linear_rate(t, prune_decay_steps, scheduled(prune_rate))
    left_over, history = delay(0.0, name="left_over"), delay(0.0, name="history")
    stepped = where(active, x + move, 0.0)
    new = active << regrown(
        active, stepped, s, due, rate, left_over, density=density, redistribution=redistribution
    )
    missing = missing_entries(new, density=density)
    total = history << where(due, history + missing, history)
    changes = (t + 0.0) / update_interval
    left_over << where(due, 0.25 * left_over + 0.75 * missing + total / changes, left_over)
    return merge(where(active & new, move, -x), others)


@method(
    "Dettmers & Zettlemoyer 2019, Sparse Networks from Scratch: Faster Training without Losing "
    "Performance",
    arxiv="1907.04840",
    tags=("momentum", "sparse", "noise"),
    learning_rate=0.1,
    small_model={"density": 0.5},
    required={"update_interval": 2, "prune_decay_steps": 40},
)
@transformation()
def sparse_momentum(
    learning_rate: optax.ScalarOrSchedule = 0.1,
    density: Portion = 0.05,
    *,
    update_interval: Period,
    prune_decay_steps: Period,
    prune_rate: Fraction = 0.5,
    prune_rate_decay: RateDecay = "cosine",
    prune_rate_end: Fraction = 0.005,
    redistribution: Redistribution = "momentum",
    base: Literal["sgd", "adam"] = "sgd",
    momentum: Decay = 0.9,
    nesterov: bool = True,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    key: Key = 0,
    init_mask: optax.Params | None = None,
    sparse: Mask | None = None,
    mask: Mask | None = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """SGD with momentum, or Adam, of sparse params; see `sparse_training` for what becomes of them.

        sgd:    z = momentum z + g,   u = -lr (g + momentum z if nesterov, else z),   S = z
        adam:   u of Adam,   S = m / (sqrt(v) + 1e-8), without bias correction

    with g the dense gradient, weight_decay x added.

    Args:
      learning_rate: lr; number or schedule.
      density, update_interval, prune_decay_steps, prune_rate, prune_rate_decay, prune_rate_end,
        redistribution, key, init_mask, sparse: see `sparse_training`.
      base: "sgd" or "adam".
      momentum: of SGD, undamped.
      nesterov: look ahead along the buffer of SGD.
      b1, b2, eps: of Adam.
      weight_decay: added to the gradient, where entries are active.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: storage of the moments; default at least float32.

    Returns:
      The optimizer; `update` needs `params`. Its state is that of the base, a boolean per sparse
      entry, and two numbers.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sparse_momentum
      >>> opt = sparse_momentum(
      ...     0.5, 0.5, update_interval=2, prune_decay_steps=100,
      ...     init_mask=jnp.array([[True, False], [True, False]]),
      ... )
      >>> x, g = jnp.array([[1.0, 1.0], [1.0, 1.0]]), jnp.array([[0.1, 0.2], [0.3, 0.4]])
      >>> state = opt.init(x)
      >>> for _ in range(2):
      ...     u, state = opt.update(g, state, x)
      ...     x = x + u
      >>> (x != 0).tolist(), (state.mask > 0).tolist()
      ([[True, False], [False, False]], [[True, False], [False, True]])

    References:
      Dettmers & Zettlemoyer 2019 (arXiv 1907.04840); TimDettmers/sparse_learning.
    """

    def step(g: Signal, params: Signal) -> Signal:
        active, shown = handed_on(_masked, params=params)
        g = g >> decay_weights(weight_decay, mask=mask, at=shown)
        if base == "sgd":
            saliency = g >> named("momentum", trace(momentum, dtype=mu_dtype))
            direction = g + scheduled(momentum) * saliency if nesterov else saliency
        else:
            m = g >> named("mu", ema(b1))
            v = square(g) >> named("nu", ema(b2))
            saliency = absolute(m) / (sqrt(v) + 1e-8)
            direction = (m >> debias(b1)) / debiased_root(v, b2, eps)
        u = -scheduled(learning_rate) * direction
        return handed_on(_sparse_steps, u=u, saliency=saliency, params=params, active=active)

    return flow(step)
