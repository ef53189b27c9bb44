"""A user's function of whole trees as one of signals."""

from collections.abc import Callable
from typing import Any

from ..notation.checks import checked
from ..notation.functions import lift_tree
from ..notation.signal import Signal
from ..notation.values import Leaves


@checked()
def mapped_tree(fn: Callable[[Any], Any], name: str) -> Callable[[Signal], Signal]:
    """Makes a function from a tree to one of the same shapes, one of signals.

    A function of signals.

    Args:
      fn: takes and returns the tree itself, a dict or whatever the params are.
      name: what the node is called.
    """

    def mapped(tree: Leaves) -> Leaves:
        return Leaves.up_to(tree.treedef, fn(tree.tree()))

    return lift_tree(mapped, name, out=0)
