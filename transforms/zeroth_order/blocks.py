"""Steps block by block, each with a slope of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from ..notation import crowds
from ..notation.cell import Cell
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.hyperparameters import Scalar
from ..notation.known import each, repeat
from ..notation.mapping import map_leaves
from ..notation.paths import joined, leaf_names
from ..notation.roots import saturated
from ..notation.signal import Signal
from ..notation.stacks import TINY
from ..notation.steps import stateful, step_count
from ..notation.values import MISSING, Leaves, either, is_missing, scalar_dtype
from .directions import Directions
from .losses import base_point, loss_function, moved

BlockNames = Sequence[Sequence[str]] | Callable[[Any], Sequence[Sequence[str]]] | None
"""Names of the leaves of each block, or a function from params to a tree of labels; None: one block
per top-level key."""


@dataclass(frozen=True)
class BlockSteps:
    """How the blocks are visited."""

    blocks: BlockNames
    directions: Directions
    sequential: bool
    one_sided: bool


@checked()
def block_steps(
    params: Signal,
    root: Signal,
    learning_rate: Scalar,
    perturbation_scale: Scalar,
    how: BlockSteps,
) -> Signal:
    """The sum of the steps of all blocks, as a tree signal: -lr c_k z_k at each leaf of block k.

    A function of signals.

    Args:
      params: the input `params`.
      root: the key in the state.
      learning_rate: lr; number or scalar signal.
      perturbation_scale: eps.
      how: which blocks, and whether each sees the steps of those before it.
    """
    return stateful(_cell(how), params, root, step_count(), learning_rate, perturbation_scale)


def _cell(how: BlockSteps) -> Cell:
    def init(context: Context, params: Leaves, *_: float | jax.Array) -> tuple[()]:
        members(how.blocks, params, context.label)
        return ()

    def update(
        context: Context,
        state: Any,
        params: Leaves,
        root: jax.Array,
        _: jax.Array,
        rate: float | jax.Array,
        scale: float | jax.Array,
    ) -> tuple[Leaves, optax.OptState]:
        blocks = members(how.blocks, params, context.label)
        point = base_point(context, params)
        loss = loss_function(context, context.extra.get("value_fn"), point)
        z = how.directions.draw(context, params, root)
        slope = partial(_slope, loss, scale, how.one_sided, context.scalar_dtype)
        steps = _one_by_one if len(blocks) < crowds.MANY else _in_a_loop
        done = steps(point, z, blocks, slope, rate, how.sequential)
        return either(done, params.map(jnp.zeros_like)), state

    return Cell("block_steps", init, update, needs=("params", "value_fn"), stateless=True)


Slope = Callable[[Callable[[jax.Array], Leaves], object], jax.Array]
"""That of the loss along a way, a function from a length to the point there, and what it reads."""


def _one_by_one(
    point: Leaves,
    z: Leaves,
    blocks: Sequence[set[int]],
    slope: Slope,
    rate: float | jax.Array,
    sequential: bool,
) -> Leaves:
    """The steps of a few blocks; no more than the block at hand is moved anew."""
    steps = Leaves([MISSING] * len(z), z.treedef)
    for block in blocks:
        at = moved(point, steps, 1.0) if sequential else point
        part = z.only(block.__contains__)
        step = -rate * slope(partial(moved, at, part), z)
        steps = either(steps, part.map(lambda d, own=step: _real(own, d) * d))
    return steps


def _in_a_loop(
    point: Leaves,
    z: Leaves,
    blocks: Sequence[set[int]],
    slope: Slope,
    rate: float | jax.Array,
    sequential: bool,
) -> Leaves:
    """The steps of many blocks, for all of which the loss is compiled once."""
    number = {i: k for k, block in enumerate(blocks) for i in block if not is_missing(z.values[i])}
    inside = z.only(number.__contains__)
    block_of = np.array([number[i] for i in sorted(number)])

    def one(k: int | jax.Array, steps: jax.Array) -> jax.Array:
        def at(length: jax.Array) -> Leaves:
            others = steps if sequential else jnp.zeros_like(steps)
            return moved(point, inside, jnp.where(is_at_hand, length, others)[block_of])

        is_at_hand = np.arange(len(blocks), dtype=np.int32) == k
        return jnp.where(is_at_hand, _real(-rate * slope(at, (steps, z)), steps), steps)

    steps = repeat(len(blocks), one, jnp.zeros(len(blocks), scalar_dtype(z.present())))
    own = steps[block_of]
    return map_leaves(lambda step, d: _real(step, d) * d, inside, stack=own, most=TINY)


def _real(number: jax.Array, leaf: jax.Array) -> jax.Array:
    return jnp.asarray(number, jnp.finfo(leaf.dtype).dtype)


def _slope(
    loss: Any,
    scale: float | jax.Array,
    one_sided: bool,
    dtype: DTypeLike,
    at: Callable[[jax.Array], Leaves],
    beside: object,
) -> jax.Array:
    signs = jnp.asarray([1.0, 0.0 if one_sided else -1.0], dtype)
    above, below = each(lambda sign: loss(at(sign * scale)), signs, beside=beside)
    return saturated((above - below) / (scale if one_sided else 2 * scale))


def members(blocks: BlockNames, params: Leaves, label: str) -> list[set[int]]:
    """The places of the leaves of each block; FlowError for unknown leaves and shared ones."""
    if blocks is None or callable(blocks):
        labels = _labels(blocks, params)
        present = [i for i, leaf in enumerate(params.values) if not is_missing(leaf)]
        found = dict.fromkeys(labels[i] for i in present if labels[i] is not None)
        return [{i for i in present if labels[i] == block} for block in found]
    names = _names(params)
    chosen: list[set[int]] = []
    for block in blocks:
        places = set()
        for name in block:
            inside = name.replace(".", "/") + "/"
            here = {
                i for i, full in enumerate(names) if full == name or f"{full}/".startswith(inside)
            }
            if not here:
                raise FlowError(
                    f"{label}: blocks names a leaf {name!r}; there are {', '.join(sorted(names))}"
                )
            places |= here
        if any(places & other for other in chosen):
            twice = sorted(names[i] for other in chosen for i in places & other)
            raise FlowError(f"{label}: blocks must be disjoint; {', '.join(twice)} is in two")
        chosen.append(places)
    return chosen


def _names(params: Leaves) -> list[str]:
    return [joined(path) for path in leaf_names(params.treedef)]


def _labels(blocks: Any, params: Leaves) -> list[Any]:
    if blocks is None:
        return [name.split("/")[0] for name in _names(params)]
    tree = blocks(params.tree())
    numbered = params.treedef.unflatten(range(len(params)))
    spread = jax.tree.map(
        lambda label, part: (label,) * len(jax.tree.leaves(part)),
        tree,
        numbered,
        is_leaf=lambda label: label is None,
    )
    return jax.tree.leaves(spread, is_leaf=lambda label: label is None)
