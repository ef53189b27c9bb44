"""Sparse momentum: sparse training whose weights are pruned and regrown by the momentum."""

from collections.abc import Callable
from typing import Any, Literal

import jax
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
    leaf_where,
    lift_tree,
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
from ...transforms.notation.cell import Cell, cell_of
from ...transforms.notation.context import Context
from ...transforms.notation.crowds import (
    by_stacks,
    choose_leaves,
    map_leaves,
    numbers_of,
    one_each,
    with_stacks,
)
from ...transforms.notation.hyperparameters import Portion
from ...transforms.notation.known import repeat_while
from ...transforms.notation.ordering import are_largest
from ...transforms.notation.sharding import replicated, resharded
from ...transforms.notation.stacks import TINY
from ...transforms.notation.steps import stateful
from ...transforms.notation.values import Leaves, promoting
from ...transforms.trees.random import check_key, typed_key

Redistribution = Literal["momentum", "magnitude", "nonzeros", "none"]
RateDecay = Literal["cosine", "linear"]

ROUNDS = 1000
"""How often room that a full leaf has not is handed on to the others."""

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
    active at random; the params are multiplied by the mask in the first step.

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
        both = stateful(_with_momentum(inner, momentum_fn), g)
        return _sparse_steps(
            both[0],
            both[1],
            params,
            density=density,
            update_interval=update_interval,
            prune_decay_steps=prune_decay_steps,
            prune_rate=prune_rate,
            prune_rate_decay=prune_rate_decay,
            prune_rate_end=prune_rate_end,
            redistribution=redistribution,
            key=key,
            init_mask=init_mask,
            sparse=sparse,
        )

    return flow(step)


def _with_momentum(
    inner: optax.GradientTransformation, momentum_fn: Callable[[Any], optax.Params]
) -> Cell:
    """The updates of a transformation, and its momentum, as a pair."""
    cell = cell_of(inner)

    def update(context: Context, state: Any, value: Leaves) -> tuple[Leaves, optax.OptState]:
        out, new = cell.update(context, state, value)
        momentum = Leaves.up_to(out.treedef, momentum_fn(new))
        return out.map(lambda u, s: (u, s.astype(u.dtype)), momentum), new

    return Cell(
        cell.name,
        cell.init,
        update,
        lambda context, value: value.map(lambda leaf: (leaf, leaf)),
        cell.needs,
        cell.arguments,
        children=(inner,),
        stateless=cell.stateless,
        inside=lambda state: (state,),
        rebuild=lambda children: _with_momentum(children[0], momentum_fn),
    )


def _sparse_steps(
    u: Signal,
    saliency: Signal,
    params: Signal,
    *,
    density: float,
    update_interval: Period,
    prune_decay_steps: Period,
    prune_rate: Hyperparameter,
    prune_rate_decay: RateDecay,
    prune_rate_end: Hyperparameter,
    redistribution: Redistribution,
    key: Key,
    init_mask: optax.Params | None,
    sparse: Any,
) -> Signal:
    """The steps to where params are that move by u and stay sparse."""
    if density == 0:
        raise FlowError("sparse_momentum: density=0 must be in (0, 1]: nothing would be trained")
    select = kernels if sparse is None else sparse
    (x, _), (s, _), (move, others) = (split(signal, select) for signal in (params, saliency, u))
    t = step_count()
    due = t % update_interval == 0
    rate = _prune_rate(t, prune_decay_steps, scheduled(prune_rate), scheduled(prune_rate_end))
    if prune_rate_decay == "linear":
        rate = _linear_rate(t, prune_decay_steps, scheduled(prune_rate))
    start = _first_mask(density, key, init_mask)
    mask = delay(x != x, start=start, name="mask", dtype=jnp.int8)
    left_over, history = delay(0.0, name="left_over"), delay(0.0, name="history")
    stepped = where(mask, x + move, 0.0)
    new = mask << _regrown(
        mask, stepped, s, due, rate, left_over, density=density, redistribution=redistribution
    )
    missing = _missing_entries(new, density=density)
    total = history << where(due, history + missing, history)
    changes = (t + 0.0) / update_interval
    left_over << where(due, 0.25 * left_over + 0.75 * missing + total / changes, left_over)
    return merge(where(mask & new, move, -x), others)


def _falling(
    t: jax.Array, steps: int | jax.Array, start: float | jax.Array, end: float | jax.Array
) -> jax.Array:
    return end + (start - end) * (1 + jnp.cos(jnp.pi * _part(t, steps))) / 2


def _part(t: jax.Array, steps: int | jax.Array) -> jax.Array:
    # JAX divides counts in float32 even in a float64 run.
    return jnp.minimum(jnp.asarray(t, float) / jnp.asarray(steps, float), 1.0)


def _linear(t: jax.Array, steps: int | jax.Array, start: float | jax.Array) -> jax.Array:
    return start * (1 - _part(t, steps))


_prune_rate = lift_tree(promoting(_falling), "prune_rate", out="scalar")
_linear_rate = lift_tree(promoting(_linear), "prune_rate", out="scalar")


def _first_mask(density: float, key: Key, given: optax.Params | None) -> Callable[[Leaves], Leaves]:
    """What the masks start at: given, or each entry active by itself with probability `density`."""
    check_key(key)

    def start(like: Leaves) -> Leaves:
        if given is not None:
            tree = Leaves.given(like.treedef, given, "init_mask")
            return like.map(lambda leaf, x: jnp.asarray(x, bool), tree).map(resharded, like)
        keys = iter(jax.random.split(typed_key(key), max(len(like), 1)))
        drawn = like.map(lambda leaf: jax.random.bernoulli(next(keys), density, leaf.shape))
        return drawn.map(resharded, like)

    start.of_tree = True  # type: ignore[attr-defined]
    return start


def _missing_of(context: Context, mask: Leaves, density: float) -> jax.Array:
    """By how many entries the masks fall short of the budget."""
    dtype = context.scalar_dtype
    stacks = jax.tree.leaves(by_stacks(*with_stacks(mask)))
    counts = [jnp.sum(m, dtype=dtype) for m in stacks]
    budget = density * sum(m.size for m in mask.present())
    return jnp.asarray(budget, dtype) - sum(counts, jnp.zeros((), dtype))


_missing_entries = lift_tree(promoting(_missing_of), "missing_entries", context=True, out="scalar")


def _regrown_of(
    context: Context,
    mask: Leaves,
    x: Leaves,
    saliency: Leaves,
    due: jax.Array,
    rate: jax.Array,
    left_over: jax.Array,
    density: float,
    redistribution: Redistribution,
) -> Leaves:
    """The masks after this step; see `sparse_training`."""
    places = [i for i, m in enumerate(mask.values) if hasattr(m, "size") and m.size]
    if not places:
        return mask

    def changed() -> Leaves:
        masks, weights, salient = (
            Leaves([replicated(tree.values[i]) for i in places], _list(len(places)))
            for tree in (mask, x, saliency)
        )
        new = _one_change(
            masks,
            weights,
            salient,
            jnp.asarray(rate, context.scalar_dtype),
            jnp.asarray(left_over, context.scalar_dtype),
            density,
            redistribution,
        )
        values = list(mask.values)
        for i, m in zip(places, new.values, strict=True):
            values[i] = resharded(m, values[i])
        return Leaves(values, mask.treedef)

    return choose_leaves(due, changed, lambda: mask)


_regrown = lift_tree(promoting(_regrown_of), "regrown", context=True, out=0)


def _list(length: int) -> jax.tree_util.PyTreeDef:
    return jax.tree.structure([0] * length)


def _one_change(
    masks: Leaves,
    weights: Leaves,
    saliency: Leaves,
    rate: jax.Array,
    left_over: jax.Array,
    density: float,
    redistribution: Redistribution,
) -> Leaves:
    """Pruned and regrown masks; counts are real numbers, one per leaf."""
    masks, weights, saliency = with_stacks(masks, weights, saliency)
    dtype, leaves = rate.dtype, len(masks)
    size = jnp.asarray([m.size for m in masks.values], dtype)
    active = numbers_of(lambda m: jnp.sum(m, dtype=dtype), masks, most=TINY)
    room = size - active

    def mean_of(values: Leaves) -> jax.Array:
        def total(m: jax.Array, v: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(m, jnp.abs(v), 0)).astype(dtype)

        return numbers_of(total, masks, values, most=TINY) / jnp.maximum(active, 1)

    measured = {
        "momentum": lambda: mean_of(saliency),
        "magnitude": lambda: mean_of(weights),
        "nonzeros": lambda: numbers_of(lambda w: jnp.sum(w != 0, dtype=dtype), weights, most=TINY),
        "none": lambda: size / (density * sum(m.size for m in masks.values)),
    }[redistribution]()
    total = jnp.sum(measured)
    share = jnp.where(total > 0, measured / jnp.where(total > 0, total, 1), 1 / leaves)

    crowded = (room / size < 0.2) & (share > 1 / leaves)
    rates = jnp.where(crowded, jnp.minimum(room / size, rate), rate)
    removing = jnp.ceil(rates * active)
    first = jnp.where(removing == 0, -1, room + removing)
    pruned = map_leaves(
        lambda w, r: jnp.where(r < 0, w != 0, ~_are_largest(-jnp.abs(w), r)),
        weights,
        one_each(first, weights),
        most=TINY,
    )
    kept = numbers_of(lambda m: jnp.sum(m, dtype=dtype), pruned, most=TINY)
    quota = jnp.ceil(share * (jnp.sum(active - kept) + left_over))
    quota = jnp.floor(_within(quota, 0.99 * (room + removing)))
    return map_leaves(
        lambda m, s, most: m | (~m & _are_largest(jnp.where(m, -1, jnp.abs(s)), most)),
        pruned,
        saliency,
        one_each(quota, pruned),
        most=TINY,
    )


def _are_largest(x: jax.Array, count: jax.Array) -> jax.Array:
    return are_largest(x.ravel(), count).reshape(x.shape)


def _within(quota: jax.Array, cap: jax.Array) -> jax.Array:
    """Quotas without what exceeds their caps, which goes to all in equal parts."""

    def going(carry: tuple[jax.Array, jax.Array, Any]) -> jax.Array:
        _, excess, count = carry
        return (excess > 0) & (count < ROUNDS)

    def body(
        carry: tuple[jax.Array, jax.Array, Any],
    ) -> tuple[jax.Array, jax.Array, Any]:
        now, _, count = carry
        excess = jnp.sum(jnp.maximum(now - cap, 0))
        return jnp.minimum(now, cap) + excess / len(cap), excess, count + 1

    return repeat_while(going, body, (quota, jnp.full_like(quota[0], jnp.inf), 0))[0]


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
    learning_rate: optax.ScalarOrSchedule,
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
        g = g >> decay_weights(weight_decay, mask=mask)
        if base == "sgd":
            saliency = g >> named("momentum", trace(momentum, dtype=mu_dtype))
            direction = g + scheduled(momentum) * saliency if nesterov else saliency
        else:
            m = g >> named("mu", ema(b1))
            v = square(g) >> named("nu", ema(b2))
            saliency = absolute(m) / (sqrt(v) + 1e-8)
            direction = (m >> debias(b1)) / debiased_root(v, b2, eps)
        return _sparse_steps(
            -scheduled(learning_rate) * direction,
            saliency,
            params,
            density=density,
            update_interval=update_interval,
            prune_decay_steps=prune_decay_steps,
            prune_rate=prune_rate,
            prune_rate_decay=prune_rate_decay,
            prune_rate_end=prune_rate_end,
            redistribution=redistribution,
            key=key,
            init_mask=init_mask,
            sparse=sparse,
        )

    return flow(step)
