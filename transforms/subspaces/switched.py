"""Subspaces that are all of a leaf, or nothing."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..notation import draws
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Key, Share
from ..notation.mapping import map_leaves
from ..notation.signal import Signal
from ..notation.steps import step_count
from ..notation.values import Leaves
from ..trees.random import random_key
from .bases import Switch

BlockOrder = Literal["random", "ascending", "descending", "mirror"]


@transformation()
def active_leaves(density: Share, order: BlockOrder = "random", key: Key = 0) -> Flow:
    """Switches a share of the leaves on and the others off.

    A transformation to send signals through.

    With n leaves, q = round(density n) of them are on: a random choice; or, in turn, the next q in
    "ascending" or "descending" order; or ("mirror") the next q / 2 from either end.

    Args:
      density: the share.
      order: one of the above.
      key: seed or key of the random choice.

    Raises:
      FlowError: in `init`, for "mirror" with an odd q.

    References:
      Zmushko et al. 2024, FRUGAL (arXiv 2411.07837), the authors' code.
    """

    def active(tree: Leaves) -> int:
        n = len(tree.present())
        q = round(density * n)
        if order == "mirror" and q % 2:
            raise FlowError(f"order='mirror' needs an even number of active leaves, not {q} of {n}")
        return q

    def switch(tree: Leaves, turn: jax.Array, fresh: Any = None) -> Leaves:
        is_on = _places(order, len(tree.present()), active(tree), turn, fresh)
        return map_leaves(lambda flag, _: Switch(flag), tree, stack=is_on)

    def shape(_: object, tree: Leaves, *rest: jax.ShapeDtypeStruct) -> Leaves:
        active(tree)
        return tree.map(lambda _: jax.eval_shape(lambda: Switch(jnp.bool_(False))))

    def step(g: Signal) -> Signal:
        switched = lift_tree(switch, "active_leaves", out=shape)
        turn = step_count() - 1
        return switched(g, turn, random_key(key)) if order == "random" else switched(g, turn)

    return flow(step)


def _places(order: str, n: int, q: int, turn: jax.Array, key: Any) -> jax.Array:
    """Whether each of n leaves is among the q of this turn."""
    index = jnp.arange(n)
    if order == "random":
        return draws.permutation(key, n) < q
    if order == "mirror":
        half = max(n // 2, 1)
        nearest = jnp.minimum(index, n - 1 - index)
        return ((nearest - turn * (q // 2)) % half < q // 2) & (nearest < half)
    forward = index if order == "ascending" else n - 1 - index
    return (forward - turn * q) % max(n, 1) < q
