"""Carrying a state over from one subspace to the next."""

from typing import Any

import jax
import jax.numpy as jnp

from ..notation.cell import Cell
from ..notation.context import Context
from ..notation.functions import lift_tree
from ..notation.mapping import map_leaves
from ..notation.packing import choose_leaves
from ..notation.precision import SECOND_MOMENTS, moment_name
from ..notation.roots import root, squared
from ..notation.signal import CellNode, Delay, Signal
from ..notation.splicing import Reader
from ..notation.stacks import TINY
from ..notation.values import Leaves, is_missing

SHARED = frozenset({"v_row", "v_col"})
"""Second moments of whole rows and columns: no coordinates, whatever their shape."""


def transporting(fresh: Signal, old: Signal, new: Signal, low: Signal) -> Reader:
    """What the nodes of a flow read whose state is carried over where `fresh` holds; see `splice`.

    States in the shapes of the coordinates are: second moments, by their name, through their roots,
    since these are what turns with the coordinates; all others as they are. What rows or columns
    share stays.

    Args:
      fresh: a boolean scalar signal.
      old, new: the subspaces before and now.
      low: the coordinates.
    """

    def read(past: Delay | CellNode, copy: Any) -> Signal:
        if isinstance(past, CellNode):
            args = (*copy.args, fresh, old, new, low)
            return CellNode(_carrying(past.cell), args, copy.hint, copy.explicit)
        name = moment_name(past.hint, past.explicit, past.scope)
        if not isinstance(past.like, Signal) or name in SHARED:
            return copy
        squares = name in SECOND_MOMENTS
        carried = lift_tree(_carried, "transport", out=4)
        return carried(fresh, old, new, low, copy, squares=squares)

    return read


def _carried(fresh: Any, old: Leaves, new: Leaves, low: Leaves, state: Any, squares: bool) -> Any:
    if not isinstance(state, Leaves):
        return state

    def carry() -> Leaves:
        return map_leaves(
            lambda x, a, b, y: _between(a, b, x, y, squares), state, old, new, low, most=TINY
        )

    return choose_leaves(fresh, carry, lambda: state)


def _between(old: Any, new: Any, state: Any, low: Any, squares: bool) -> Any:
    is_float = hasattr(state, "dtype") and jnp.issubdtype(state.dtype, jnp.inexact)
    if not (is_float and state.shape == low.shape):
        return state
    turned = new.project(old.unproject(root(state) if squares else state))
    return (squared(turned) if squares else turned).astype(state.dtype)


def _carrying(cell: Cell) -> Cell:
    """The cell of another library's transformation, whose last arguments are those of `_carried`.

    Its states are known by their fields, as `mu` and `nu` of Optax's Adam.
    """

    def run(context: Context, state: Any, *values: Any) -> tuple[Any, Any]:
        *inputs, fresh, old, new, low = values

        def carry(field: Any, name: str) -> Any:
            if name in SHARED:
                return field
            squares = name in SECOND_MOMENTS
            leaves = Leaves.up_to(old.treedef, field)
            return _carried(fresh, old, new, low, leaves, squares).tree()

        return cell.update(context, _visited(state, old.treedef, carry), *inputs)

    return cell.given_more(4, run, _carrying)


def _visited(state: Any, treedef: jax.tree_util.PyTreeDef, carry: Any, name: str = "") -> Any:
    """The state with every tree like the params in it changed."""
    if not is_missing(state) and jax.tree.structure(state, is_leaf=is_missing) == treedef:
        return carry(state, name)
    if hasattr(state, "_fields"):
        parts = zip(state._fields, state, strict=True)
        return type(state)(*(_visited(part, treedef, carry, field) for field, part in parts))
    if isinstance(state, tuple | list):
        return type(state)(_visited(part, treedef, carry, name) for part in state)
    if isinstance(state, dict):
        return {key: _visited(part, treedef, carry, str(key)) for key, part in state.items()}
    return state
