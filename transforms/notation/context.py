"""What is known while a graph runs, and how one node is applied leaf by leaf."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import PyTreeDef

from .values import Leaves, fit_scalar, is_missing, is_strong_scalar, promoting


@dataclass
class Context:
    """What is known while a graph runs.

    Attributes:
      label: the method's name, behind those of the methods that it runs inside.
      treedef: structure of the gradient.
      params: the params in working precision, None if `update` was not given them.
      extra: the further inputs by name, `value` and so on.
      count: number of this step, None in `init`.
      scalar_dtype: dtype of scalars that accompany the leaves.
      given: the params in their own dtype.
      outer: what is known in the flow that this one runs inside as a whole, if there is one.
      sends_finite: whether what it sends to the node at hand is known to be never infinite.
    """

    label: str
    treedef: PyTreeDef
    params: Leaves | None
    extra: Mapping[str, Any]
    count: jax.Array | None
    scalar_dtype: jnp.dtype
    given: Leaves | None = None
    outer: "Context | None" = None
    sends_finite: bool = True

    @property
    def receives_finite(self) -> bool:
        """Whether the incoming updates are known to be never infinite: the gradient is not."""
        return self.outer is None or self.outer.sends_finite

    @property
    def step(self) -> jax.Array:
        """The number of the outermost flow's step: that of a held node runs on while it rests."""
        found = self._outermost_count()
        assert found is not None  # a flow in which something reads it counts
        return found

    def _outermost_count(self) -> jax.Array | None:
        outer = None if self.outer is None else self.outer._outermost_count()
        return self.count if outer is None else outer

    @property
    def whole(self) -> Leaves | None:
        """All params in their own dtype, as closures take them, also where a part is computed."""
        is_whole = self.given is not None and len(self.given.present()) == len(self.given)
        if self.outer is None or is_whole:
            return self.given
        outer = self.outer.whole
        return self.given if outer is None or outer.treedef != self.treedef else outer

    def params_like(self, value: Leaves) -> Leaves | None:
        """The params at the leaves that `value` has; None if they are not shaped like it."""
        if self.given is None or value.treedef != self.treedef:
            return None
        there = {i for i, leaf in enumerate(value.held) if not is_missing(leaf)}
        params = self.given if len(there) == len(value) else self.given.only(there.__contains__)
        like = ((value.abstract(i), params.abstract(i)) for i in there)
        pairs = ((x, p) for x, p in like if not is_missing(p))
        return params if all(getattr(x, "shape", None) == jnp.shape(p) for x, p in pairs) else None


class Fitter:
    """Brings the scalars among the arguments of a leafwise node into the precision of each leaf.

    A float64 scalar, of a schedule or an injected hyper-parameter, would otherwise widen a float32
    leaf. Each scalar is converted once per dtype, not once per leaf.
    """

    def __init__(self, args: Sequence[Any]) -> None:
        self.trees = [i for i, arg in enumerate(args) if isinstance(arg, Leaves)]
        self.loose = [
            i for i, arg in enumerate(args) if i not in self.trees and is_strong_scalar(arg)
        ]
        self.converted: dict[Any, list[Any]] = {}

    def __call__(self, row: Sequence[Any]) -> Sequence[Any]:
        """The row with its scalars converted."""
        if not self.loose:
            return row
        leaves = jax.tree.leaves([row[i] for i in self.trees])
        dtypes = tuple(leaf.dtype for leaf in leaves if hasattr(leaf, "dtype"))
        if not dtypes:
            return row
        if dtypes not in self.converted:
            dtype = promoting(jnp.result_type)(*dtypes)
            self.converted[dtypes] = [fit_scalar(row[i], dtype) for i in self.loose]
        fitted = list(row)
        for i, scalar in zip(self.loose, self.converted[dtypes], strict=True):
            fitted[i] = scalar
        return fitted


def leaf_by_leaf(fn: Callable[..., Any], args: list[Any]) -> Any:
    """Applies `fn` to every leaf of the tree arguments; scalars go to each."""
    trees = [arg for arg in args if isinstance(arg, Leaves)]
    if not trees:
        return fn(*args)
    first = trees[0]
    if any(tree.treedef != first.treedef for tree in trees):
        raise ValueError("its arguments have leaves of different structure")
    columns = [arg.values if isinstance(arg, Leaves) else (arg,) * len(first) for arg in args]
    rows = enumerate(zip(*columns, strict=True))
    fit = Fitter(args)
    return Leaves((_apply(fn, row, fit, first, i) for i, row in rows), first.treedef)


def _apply(
    fn: Callable[..., Any], row: tuple[Any, ...], fit: Fitter, tree: Leaves, index: int
) -> Any:
    for value in row:
        if is_missing(value):
            return value
    try:
        return fn(*fit(row))
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"leaf {tree.path(index)}: {error}") from error
