"""Subspaces that follow the gradient and the momentum: those of COAP."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..control.holding import Holding
from ..notation import draws
from ..notation.annotations import unboxed
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.context import Context
from ..notation.crowds import with_stacks
from ..notation.hyperparameters import Axis, Key, NonNegative, Period, Positive, Sampler
from ..notation.layout import make_state
from ..notation.mapping import map_leaves, shapes_of
from ..notation.packing import choose_leaves
from ..notation.plain import restored
from ..notation.roots import magnitude, norm, root
from ..notation.sharding import replicated
from ..notation.signal import Signal
from ..notation.stacks import TINY
from ..notation.steps import scheduled, stateful, step_count
from ..notation.storage import stored, zeros
from ..notation.values import Leaves
from ..trees.random import drawn_leaves, random_key
from .bases import Basis, Tucker
from .spanned import one_sided, sketched
from .tucker import partial_tucker

Ranks = Callable[[jax.Array], tuple[tuple[int, ...], tuple[int, ...]]]
"""From a leaf to the axes that are projected, and how many vectors along each."""


@transformation()
def correlation_aware_basis(
    ranks: Ranks,
    update_interval: Period = 32,
    reproject_factor: Period = 5,
    learning_rate: NonNegative = 0.1,
    clip: Positive = 1.0,
    fan_in_axis: Axis = -1,
    key: Key = 0,
    sampler: Sampler | None = None,
) -> Flow:
    """Bases that now and then take a gradient step towards gradient and momentum, or start anew.

    A transformation to send signals through.

        J(P) = mean (up(down(g)) - g)^2 (1 - mean over rows of cos(up(m), g))
        D = grad J(P),   P <- P - learning_rate D min(1, clip / (|D| + 1e-6))

    at t = k + 1, 2k + 1, ..., with the momentum m, the state `mu` of the transformation that runs
    in the subspace, of before the step. At each `reproject_factor`-th of these P is found anew: of
    matrices by one step of subspace iteration from the old P, of others by
    `transforms.subspaces.partial_tucker`. At t = 1 matrices start from a random sketch. P is never
    made orthonormal otherwise.

    Args:
      ranks: from a leaf to the axes that are projected, and how many vectors along each; of a
        matrix the shorter side.
      update_interval: k.
      reproject_factor: see above.
      learning_rate: number or schedule.
      clip: largest Frobenius norm of D, of each basis; number or schedule.
      fan_in_axis: along which the rows lie, whose cosines count, in leaves that are no matrices;
        in matrices it is the last.
      key: seed or key of the first sketch.
      sampler: `(key, count, params) -> tree` of (shorter side, rank) matrices for the sketch; count
        is 0 at the first step.

    References:
      Xiao et al. 2024, COAP: Memory-Efficient Training with Correlation-Aware Gradient Projection
      (arXiv 2412.00071), and bytedance/coap, which has the step's rate and its clipping.
    """

    def step(g: Signal, mu: Signal) -> Signal:
        i = step_count() - 1
        due, anew = i % update_interval == 0, i % (update_interval * reproject_factor) == 0
        cell = _following(ranks, fan_in_axis, sampler)
        rate, bound = scheduled(learning_rate), scheduled(clip)
        return stateful(cell, g, due, anew, i, mu, rate, bound, random_key(key))

    return flow(step)


def _following(ranks: Ranks, fan_in_axis: int, sampler: Any, paired: bool = False) -> Holding:
    """The cell that holds the subspaces."""

    def shapes(tree: Leaves) -> Leaves:
        return shapes_of(lambda x: _empty(x, *ranks(x)), tree)

    def drawn(context: Context, g: Leaves, key: jax.Array) -> Leaves:
        def draw(fresh: jax.Array, x: jax.Array) -> jax.Array:
            return draws.normal(fresh, _empty_sketch(x, ranks(x)[1]), x.dtype)

        return drawn_leaves(context, g, key, draw, sampler)

    def refined(
        g: Leaves, past: Leaves, mu: Leaves, rate: float | jax.Array, clip: float | jax.Array
    ) -> Leaves:
        def of_leaf(x: jax.Array, p: Basis, m: jax.Array) -> Basis:
            return _refined(p, x, m, rate, clip, fan_in_axis)

        return map_leaves(of_leaf, g, past, mu)

    def run(context: Context, state: Any, g: Leaves, due: jax.Array, *rest: Any) -> tuple[Any, Any]:
        anew, i, mu, rate, clip, key = rest
        g = map_leaves(replicated, g, most=TINY)  # once, and not in each branch
        held = unboxed(g.treedef, state.output)
        g, past, mu = with_stacks(g, restored(held, shapes(g)), mu)

        def found() -> Leaves:
            omegas = choose_leaves(
                i == 0,
                lambda: drawn(context, g, key),
                lambda: map_leaves(_directions, g, past),
            )
            return map_leaves(lambda x, omega: _found(x, *ranks(x), omega), g, omegas)

        def other() -> Leaves:  # the first is one of those that are found anew
            made = choose_leaves(anew, found, lambda: refined(g, past, mu, rate, clip))
            return map_leaves(_cast, made, past, most=TINY)

        new = choose_leaves(due, other, lambda: past)
        given = map_leaves(lambda *both: both, past, new, most=TINY) if paired else new
        kept = stored(new, context)
        return given, state._replace(output=_in_structure(kept, state.output))

    def init(context: Context, g: Leaves, *_: float | jax.Array | Leaves) -> optax.OptState:
        return make_state("HeldState", {"output": stored(zeros(shapes(g)), context)})

    def out(context: Context, g: Leaves, *_: object) -> Leaves:
        found = shapes(g)
        return found.map(lambda x: (x, x)) if paired else found

    return Holding(
        "correlation_aware_basis",
        init,
        run,
        out,
        paired=lambda: _following(ranks, fan_in_axis, sampler, paired=True),
    )


def _in_structure(new: optax.Params, old: optax.Params) -> optax.Params:
    return jax.tree.unflatten(jax.tree.structure(old), jax.tree.leaves(new))


def _cast(new: Basis, old: Basis) -> Basis:
    return jax.tree.map(lambda x, y: x.astype(y.dtype), new, old)


def _empty_sketch(leaf: jax.Array, counts: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the sketch's matrix; nothing is drawn for what is no matrix."""
    return (min(leaf.shape), counts[0]) if leaf.ndim == 2 else (0,)


def _empty(
    leaf: jax.Array | jax.ShapeDtypeStruct, axes: tuple[int, ...], counts: tuple[int, ...]
) -> Basis | Tucker:
    if leaf.ndim == 2:
        return one_sided(jnp.zeros((counts[0], leaf.shape[axes[0]]), leaf.dtype), axes[0] == 1)
    sizes = zip(axes, counts, strict=True)
    return Tucker(tuple(jnp.zeros((leaf.shape[a], r), leaf.dtype) for a, r in sizes), axes)


def _found(
    leaf: jax.Array, axes: tuple[int, ...], counts: tuple[int, ...], omega: Any
) -> Basis | Tucker:
    """A subspace by one sketch with omega, of a matrix, or else by a Tucker decomposition."""
    if leaf.ndim != 2:
        return partial_tucker(leaf, axes, counts)
    is_right = axes[0] == 1
    return one_sided(sketched(leaf if is_right else leaf.T, omega), is_right)


def _directions(leaf: jax.Array, subspace: Basis | Tucker) -> jax.Array:
    """The columns at which a basis points; nothing of a Tucker decomposition."""
    if isinstance(subspace, Tucker):
        return jnp.zeros((0,), leaf.dtype)
    columns = subspace.right.conj().T if subspace.left is None else subspace.left.conj()
    return columns.astype(leaf.dtype)


def _refined(
    subspace: Basis,
    g: jax.Array,
    m: jax.Array,
    rate: float | jax.Array,
    clip: float | jax.Array,
    fan_in_axis: int,
) -> Basis:
    """The subspace after one gradient step on J, which is computed on g over its magnitude s.

    So J is 1 / s^2 of itself, and no square leaves the format.
    """
    axis = 1 if g.ndim == 2 else fan_in_axis
    size = jnp.max(magnitude(g))
    unit = g / size

    def loss(p: Basis) -> jax.Array:
        left_out = p.unproject(p.project(unit)) - unit
        missed = jnp.mean(jnp.real(left_out * left_out.conj()))
        return missed * (1 - jnp.mean(_cosines(p.unproject(m), unit, axis, size)))

    def stepped(p: jax.Array, slope: jax.Array) -> jax.Array:
        length = norm(slope)
        bound = clip / (length + 1e-6 / size / size)
        factor = jnp.where(length > 0, jnp.minimum(size * size, bound), 0)
        return p - (rate * factor * slope.conj()).astype(p.dtype)

    return jax.tree.map(stepped, subspace, jax.grad(loss)(subspace))


def _cosines(a: jax.Array, b: jax.Array, axis: int, size: jax.Array) -> jax.Array:
    """Of the vectors along an axis; norms are at least 1e-8, that of b times its size."""

    def unit(x: jax.Array, scale: jax.Array) -> jax.Array:
        length = root(jnp.sum(jnp.real(x * x.conj()), axis=axis, keepdims=True))
        return x / jnp.maximum(length, jnp.maximum(1e-8 / scale, 1e-30))

    largest = jnp.max(magnitude(a))
    product = unit(a / largest, largest) * unit(b, size).conj()
    return jnp.sum(jnp.real(product), axis=axis)
