"""One manifold for each leaf, and its operations as functions of signals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from ..notation.cell import Cell
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree, where
from ..notation.signal import Signal
from ..notation.steps import stateful, step_count
from ..notation.values import Leaves, is_missing
from .manifold import Euclidean, Manifold

Manifolds: TypeAlias = (
    Manifold
    | Mapping[str, "Manifolds"]
    | Sequence["Manifolds"]
    | Callable[[optax.Params], Any]
    | None
)
"""A manifold for all leaves; a tree of manifolds, shaped like the params or a part of them; or a
function of the params that gives one. What has no entry, or None, is Euclidean."""

NEAR = 1e-3


@checked()
def manifolds_by_path(rule: Callable[[str], Manifold | None]) -> Callable[[Any], Any]:
    """Manifolds chosen by where a leaf is in the tree.

    A function of a rule.

    Args:
      rule: from a path such as "encoder/embedding" to a manifold, or None for Euclidean leaves.

    Returns:
      What the argument `manifolds` of an optimizer takes.

    Example:
      >>> from gradchain.transforms.manifolds import manifolds_by_path, sphere
      >>> by_name = manifolds_by_path(lambda path: sphere() if path.endswith("codes") else None)
      >>> by_name({"codes": 1.0, "bias": 2.0})
      {'bias': Euclidean(), 'codes': Sphere(exact=False)}
    """

    def of_params(params: optax.Params) -> optax.Params:
        def chosen(path: Sequence[object], _: object) -> Manifold:
            return rule("/".join(str(_name(key)) for key in path)) or Euclidean()

        return jax.tree_util.tree_map_with_path(chosen, params)

    return of_params


class OnManifolds:
    """The operations of the manifolds that are given to an optimizer, on signals.

    Args:
      label: the optimizer, for messages.
      manifolds: what it was given; None is Euclidean everywhere.

    Raises:
      FlowError: for what is neither manifolds nor a function; in `init`, for an entry that belongs
        to no leaf, a leaf that does not fit its manifold, or a point that is off it.
    """

    def __init__(self, label: str, manifolds: Manifolds) -> None:
        self.label = label
        self.manifolds = manifolds
        if not callable(manifolds):
            entries = jax.tree.leaves(manifolds, is_leaf=_is_entry)
            bad = [entry for entry in entries if not _is_entry(entry)]
            if bad:
                raise FlowError(
                    f"{label}: manifolds must be manifolds, such as sphere(), or a tree of them, "
                    f"or a function of the params; found {bad[0]!r}"
                )

    def checked(self, x: Signal) -> Signal:
        """The params; in `init` they must lie on their manifolds, as far as they are known."""
        cell = Cell("on_manifolds", self._check, lambda c, state, x: (x, state), stateless=True)
        return stateful(cell, x)

    def gradient(self, x: Signal, g: Signal) -> Signal:
        """The Riemannian gradient at x, of a Euclidean one."""
        return self._leafwise("egrad2rgrad", 1, x, g)

    def squared_length(self, x: Signal, u: Signal) -> Signal:
        """The squared lengths of tangent vectors at x, one number per point."""
        return self._leafwise("inner", None, x, u)

    def retract(self, x: Signal, u: Signal) -> Signal:
        """Where u leads from x."""
        return self._leafwise("retract", 0, x, u)

    def tangent(self, x: Signal, v: Signal) -> Signal:
        """The nearest tangent vectors at x."""
        return self._leafwise("project_tangent", 1, x, v)

    def travel(
        self, x: Signal, u: Signal, stabilize: Any = None
    ) -> tuple[Signal, Callable[[Signal], Signal]]:
        """Where u leads from x, and the function that carries tangent vectors along.

        Args:
          x: the params.
          u: a tangent vector.
          stabilize: after each so many steps the point is put on its manifold again, and what is
            carried is made tangent; None: never.
        """
        y = self.retract(x, u)

        def carried(v: Signal) -> Signal:
            return self._leafwise("transport", 3, x, u, y, v)

        if stabilize is None:
            return y, carried
        due = step_count() % stabilize == 0
        landed = where(due, self._leafwise("project", 0, y), y)
        return landed, lambda v: where(due, self.tangent(landed, carried(v)), carried(v))

    def _leafwise(self, operation: str, out: int | None, *signals: Signal) -> Signal:
        def apply(context: Context, *trees: Leaves) -> Leaves:
            chosen = self._assigned(context, trees[0])
            rows = zip(chosen, *(tree.values for tree in trees), strict=True)
            return Leaves((_applied(operation, *row) for row in rows), trees[0].treedef)

        return lift_tree(apply, operation, out=out, context=True)(*signals)

    def _assigned(self, context: Context, tree: Leaves) -> list[Manifold]:
        """The manifold of each leaf; raises FlowError where they do not fit the params."""
        given = self.manifolds
        if callable(given):
            whole = context.whole or tree
            given = given(whole.tree())
        if given is None or isinstance(given, Manifold):
            found = [given or Euclidean()] * len(tree)
        else:
            found = _by_prefix(self.label, given, tree)
        for index, (manifold, leaf) in enumerate(zip(found, tree.values, strict=True)):
            problem = None if is_missing(leaf) else manifold.misfit(leaf.shape)
            if problem:
                raise FlowError(
                    f"{self.label}: leaf {tree.path(index)} of shape {leaf.shape} cannot be on "
                    f"{manifold}: it {problem}"
                )
        return found

    def _check(self, context: Context, x: Leaves) -> tuple[()]:
        chosen = self._assigned(context, x)
        for index, (manifold, leaf) in enumerate(zip(chosen, x.values, strict=True)):
            known = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
            if is_missing(leaf) or not known or isinstance(manifold, Euclidean):
                continue
            given = leaf if context.given is None else context.given.values[index]
            off = float(manifold.distance(leaf))
            if not off <= max(NEAR, 4 * float(jnp.finfo(given.dtype).eps)):
                raise FlowError(
                    f"{self.label}: the point at leaf {x.path(index)} is {off:.3g} off {manifold}; "
                    "put it there with its `project`, or draw it with `random`"
                )
        return ()


def _applied(operation: str, manifold: Manifold, *values: jax.Array) -> jax.Array:
    missing = [value for value in values if is_missing(value)]
    return missing[0] if missing else getattr(manifold, operation)(*values)


def _is_entry(value: object) -> bool:
    return value is None or isinstance(value, Manifold)


def _by_prefix(label: str, given: object, tree: Leaves) -> list[Manifold]:
    """For each leaf the entry that lies on its path; Euclidean where there is none."""
    numbered = tree.treedef.unflatten(range(len(tree)))
    leaves = jax.tree_util.tree_flatten_with_path(numbered)[0]
    paths = [tuple(map(_name, path)) for path, _ in leaves]
    found: list[Manifold] = [Euclidean()] * len(tree)
    entries = jax.tree_util.tree_flatten_with_path(given, is_leaf=_is_entry)[0]
    for keys, entry in entries:
        start = tuple(map(_name, keys))
        below = [i for i, path in enumerate(paths) if path[: len(start)] == start]
        if not below:
            where_ = jax.tree_util.keystr(keys)
            raise FlowError(f"{label}: manifolds has an entry {where_}, but the params have none")
        for i in below:
            found[i] = entry or Euclidean()
    return found


def _name(key: Any) -> str:
    """What a key of a path says, whatever the kind of container."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return key
