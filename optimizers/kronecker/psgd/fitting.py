"""Preconditioners Q^T Q that are fitted to curvature pairs while Q stays in a Lie group."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ....transforms import (
    Flow,
    Key,
    Positive,
    Sampler,
    Signal,
    checked,
    delay,
    draw_like,
    flow,
    lift,
    lift_tree,
    step_count,
)
from ....transforms.curvature import given_or, hessian_along
from ....transforms.curvature.pairs import WHITENING_DAMPING
from ....transforms.kronecker.cache_chunks import by_cache_chunks
from ....transforms.kronecker.spreading import shared_like, where_it_lies
from ....transforms.notation.roots import root, saturated, usable
from ....transforms.notation.values import Leaves
from ....transforms.trees import random_key
from ....transforms.trees.random import fold_key
from .lie_groups import LieGroup

FitMode = Literal["newton", "whiten"]


@checked()
def fit_preconditioner(
    group: LieGroup,
    rate: Positive,
    mode: FitMode,
    init_scale: Positive | None = None,
    key: Key = 0,
    of: Callable[[Signal], Signal] = lambda tree: tree,
    sampler: Sampler | None = None,
    moving: Callable[[Signal], Signal] = lambda tree: tree,
) -> Flow:
    """The element of a group that is fitted to curvature pairs, one of them at every step.

    "newton" takes v ~ N(0, I) and h = H v, so that Q^T Q tends to |H|^-1, and needs `value_fn`, or
    the product as the input `hvp`. "whiten" takes h = g + 2^-13 mean|g| v, so that Q^T Q tends to
    E[g g^T]^(-1/2). The input `probe` stands in for v.

    An element starts at the first pair that is not zero, from `init_scale` or from the scale that
    suits the pair. A pair that is zero or not finite, and a step that would leave the finite
    numbers, leave the element as it is; `failed_updates` counts those that are not finite. An
    element that makes a pair 10^4 times as long as it should be, |Q h| beside |Q^-T v|, is first
    multiplied by what makes both as long: see `shrinking`.

    Args:
      group: `Kronecker`, `LowRank` or `Cross`.
      rate: step size within the group.
      mode: "newton" or "whiten".
      init_scale: scale of the first Q; None takes it from the first pair.
      key: seed or key of the probes.
      of: brings a tree into the form that the group works on.
      sampler: `(key, count, params) -> tree` in place of the normal distribution; count is 0 at the
        first step.
      moving: sets to zero what does not move, so that its curvature enters no product.

    References:
      Li 2018, Preconditioned Stochastic Gradient Descent (arXiv 1512.04202), and Pooladzandi & Li
      2024 (arXiv 2402.04553).
    """

    def fitted(v: Signal, h: Signal, fresh: Signal) -> Signal:
        v, h = of(v), of(h)
        past = delay(lift(lambda x: _unfitted(group, x), "unfitted")(h))
        moved = functools.partial(_moved, group, mode)
        moved.of_any = moved  # type: ignore[attr-defined]
        move = lift(moved, "fit")
        scale = () if init_scale is None else (init_scale,)
        return past << move(past, v, h, fold_key(fresh, 1), step_count(), rate, *scale)

    def newton(
        g: Signal,
        params: Signal,
        value_fn: Signal | None = None,
        hvp: Signal | None = None,
        probe: Signal | None = None,
    ) -> Signal:
        fresh = random_key(key)
        v = moving(given_or(probe, draw_like(params, fresh, "gaussian", sampler)))
        return fitted(v, hessian_along(value_fn, hvp, params, v), fresh)

    def whiten(g: Signal, probe: Signal | None = None) -> Signal:
        fresh = random_key(key)
        return fitted(given_or(probe, draw_like(g, fresh, "gaussian", sampler)), g, fresh)

    return flow(newton if mode == "newton" else whiten, name="preconditioner")


class Fitted(NamedTuple):
    """What `fit_preconditioner` keeps of one leaf of the group.

    Attributes:
      element: its parts, all zero before the first pair.
      failed: whether the last step was not taken because something was not finite.
    """

    element: Any
    failed: jax.Array


def _unfitted(group: LieGroup, x: jax.Array) -> Fitted:
    empty = Fitted(group.empty(x), jnp.zeros(x.shape[:1] if group.batched else (), jnp.bool_))
    return jax.tree.map(lambda part: shared_like(part, x), empty) if group.batched else empty


def _over(reduce: Callable[..., Any], x: jax.Array, group: LieGroup) -> jax.Array:
    """A reduction of every vector: one number per element of the group."""
    return reduce(x, axis=tuple(range(1 if group.batched else 0, x.ndim)))


def _all_over(test: Callable[[Any], Any], tree: Any, group: LieGroup) -> jax.Array:
    parts = [_over(jnp.all, test(x), group) for x in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, parts)


def _choose(flag: jax.Array, one: Any, other: Any) -> Any:
    """One element or the other, by a flag for each."""
    return jax.tree.map(
        lambda x, y: jnp.where(flag.reshape(flag.shape + (1,) * (x.ndim - flag.ndim)), x, y),
        one,
        other,
    )


def _started(group: LieGroup, element: Any) -> jax.Array:
    return ~_all_over(lambda part: part == 0, element, group)


def _moved(
    group: LieGroup,
    mode: FitMode,
    past: Fitted,
    v: jax.Array,
    h: jax.Array,
    key: jax.Array,
    t: jax.Array,
    rate: float | jax.Array,
    init_scale: float | jax.Array | None = None,
) -> Fitted:
    """The element after a pair; those of stacked tensors part by part."""
    if not h.size:  # a mean over no entries is none
        return past
    given = (key, t, rate, init_scale)
    if not group.batched or h.ndim < 3:
        return _stepped(group, mode, (past, v, h), *given)
    step = by_cache_chunks(functools.partial(_stepped, group, mode))
    fitted: Fitted = where_it_lies(step, (past, v, h), *given)
    return fitted


def _stepped(
    group: LieGroup,
    mode: FitMode,
    pair: tuple[Fitted, jax.Array, jax.Array],
    key: jax.Array,
    t: jax.Array,
    rate: float | jax.Array,
    init_scale: float | jax.Array | None,
) -> Fitted:
    past, v, h = pair
    past = jax.tree.map(saturated, past)
    sound, present = _over(jnp.all, jnp.isfinite(h), group), _over(jnp.any, h != 0, group)
    # a pair that will not be used is replaced: its scale is infinite, and makes NaN on the way
    v, h = _choose(sound & present, (v, h), (jnp.ones_like(v), jnp.ones_like(h)))
    scale = _first_scale(group, v, h, mode) if init_scale is None else init_scale
    if mode == "whiten":
        size = _over(jnp.mean, jnp.abs(h), group)
        h = h + WHITENING_DAMPING * size.reshape(size.shape + (1,) * (h.ndim - size.ndim)) * v
    scale = jnp.broadcast_to(jnp.asarray(scale, h.dtype), present.shape)
    started = _started(group, past.element)
    q = _choose(started, past.element, group.start(h, scale, key))
    new = group.moved(q, v, h, jnp.asarray(rate, h.dtype), key, t)
    sound = sound & _all_over(jnp.isfinite, new, group)
    return Fitted(_choose(sound & present, new, past.element), ~sound & present)


def _first_scale(group: LieGroup, v: jax.Array, h: jax.Array, mode: str) -> jax.Array:
    size = usable(_over(jnp.max, jnp.abs(h), group))  # fourth powers are soon no numbers
    relative = h / size.reshape(size.shape + (1,) * (h.ndim - size.ndim))
    scale = _over(jnp.mean, relative**4, group) ** (-1 / 8) / root(size)
    return scale if mode == "whiten" else _over(jnp.mean, v**2, group) ** (1 / 4) * scale


def preconditioned(fitted: Signal, x: Signal, group: LieGroup) -> Signal:
    """Q^T Q x; x itself as long as there has been no pair.

    Args:
      fitted: what `fit_preconditioner` gives.
      x: a signal in the form that the group works on.
      group: the same group.
    """

    def apply(q: Fitted, x: jax.Array) -> jax.Array:
        return _choose(_started(group, q.element), group.applied(q.element, x), x)

    return lift(apply, "precondition")(fitted, x)


def failed_updates(fitted: Signal) -> Signal:
    """How many elements of a group were left as they were, as a scalar signal."""

    def count(tree: Leaves) -> Any:
        flags = [jnp.sum(leaf.failed, dtype=jnp.int32) for leaf in tree.present()]
        return sum(flags, jnp.zeros((), jnp.int32))

    shape = jax.ShapeDtypeStruct((), jnp.int32)
    return lift_tree(count, "failed_updates", out=lambda *_: shape)(fitted)
