"""What a signal carries at run time: the leaves of a tree, or a scalar."""

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import PyTreeDef
from jax.typing import DTypeLike

from .errors import FlowError
from .tracing import trace_state

Given = ParamSpec("Given")
Value = TypeVar("Value")


class Missing(optax.MaskedNode):
    """Optax's node for a leaf that is masked, as a kind of our own that `jax.export` can write."""


class NoState(optax.EmptyState):
    """Optax's empty state, likewise."""


MISSING = Missing()
"""Stands where a signal has no value for a leaf: the other side of a `split`."""


def is_missing(value: object) -> bool:
    """True for a leaf that the signal leaves out."""
    return isinstance(value, optax.MaskedNode)


def serializable(kind: type[Any], fields: tuple[str, ...] = ()) -> None:
    """Lets `jax.export` write programs whose arguments or results are named tuples of that kind."""
    name = f"gradchain.{kind.__name__}({', '.join(fields)})"
    jax.export.register_namedtuple_serialization(kind, serialized_name=name)


Stacks = Mapping[tuple[int, ...], Any]
"""Leaves that are alike as one, with a leading axis, by the places of all that are in it."""

NO_STACKS: Stacks = MappingProxyType({})

serializable(Missing)
serializable(NoState)


def _first(stack: Any) -> Any:
    return jax.tree.map(lambda x: x[0], stack)


class Together:
    """Leaves that were made in one stack: a tree of arrays with a leading axis.

    Attributes:
      stack: the stack.
      count: how many leaves there are.
      gathered_from: the leaves, where the stack was made of them.
    """

    __slots__ = ("_abstract", "_parted", "_parting", "count", "gathered_from", "stack")

    def __init__(
        self,
        stack: Any,
        count: int,
        parting: Callable[[Any, int], list[Any]],
        gathered_from: list[Any] | None = None,
    ) -> None:
        self.stack, self.count, self.gathered_from = stack, count, gathered_from
        self._parting, self._parted = parting, list[tuple[Any, list[Any]]]()
        self._abstract: Any = None

    def leaves(self) -> list[Any]:
        """The leaves, sliced from the stack where they are asked for first.

        What is traced within, such as a branch, has slices of its own.
        """
        if self.gathered_from is not None:
            return self.gathered_from
        here = trace_state()
        for where, leaves in self._parted:
            if where == here:
                return leaves
        leaves = self._parting(self.stack, self.count)
        self._parted.append((here, leaves))
        return leaves

    def with_stack(self, stack: Any) -> "Together":
        """As many leaves, of another stack."""
        form: PyTreeDef = jax.tree.structure(stack)
        is_form = form == jax.tree.structure(self.stack)
        if is_form and all(map(operator.is_, jax.tree.leaves(stack), jax.tree.leaves(self.stack))):
            return self
        return Together(stack, self.count, self._parting)

    @property
    def abstract(self) -> Any:
        """One of the leaves, without its entries."""
        if self._abstract is None:
            self._abstract = jax.eval_shape(_first, self.stack)
        return self._abstract

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator["Part"]:
        return (Part(self, i) for i in range(self.count))


@dataclass(frozen=True, slots=True)
class Part:
    """One of leaves that were made together."""

    of: Together
    number: int

    @property
    def abstract(self) -> Any:
        """The leaf, without its entries."""
        return self.of.abstract


@jax.tree_util.register_pytree_node_class
class Leaves:
    """The leaves of one tree signal, flattened up to the structure of the gradient.

    A leaf may itself be a tuple of arrays (Kronecker factors), or `MISSING`. Leaves that were
    computed together, in a stack, are at hand as such too: what is next need not gather them again,
    and they are sliced from it only if something reads the leaves.

    Attributes:
      held: the leaves, or parts of stacks that stand for them.
      treedef: the structure.
      stacks: leaves that are alike as one, by their places.
    """

    __slots__ = ("_has_parts", "_made", "_sliced", "held", "stacks", "treedef")

    def __init__(
        self, values: Iterable[Any], treedef: PyTreeDef, stacks: Stacks = NO_STACKS
    ) -> None:
        self.held = tuple(values)
        self.treedef = treedef
        self.stacks = stacks
        self._has_parts: bool | None = None
        self._sliced: tuple[Any, tuple[Any, ...]] | None = None
        self._made: tuple[Any, Callable[[Any], Any], Leaves] | None = None

    @property
    def values(self) -> tuple[Any, ...]:
        """The leaves."""
        if self._has_parts is None:
            self._has_parts = any(type(x) is Part for x in self.held)
        if not self._has_parts:
            return self.held
        here = trace_state()
        if self._sliced is None or self._sliced[0] != here:
            found = (x.of.leaves()[x.number] if type(x) is Part else x for x in self.held)
            self._sliced = here, tuple(found)
        return self._sliced[1]

    @classmethod
    def of(cls, tree: optax.Params) -> "Leaves":
        """Flattens a tree by its own structure."""
        values, treedef = jax.tree.flatten(tree)
        return cls(values, treedef)

    @classmethod
    def up_to(cls, treedef: PyTreeDef, tree: optax.Params) -> "Leaves":
        """Flattens a tree by a given structure; raises ValueError where it does not fit."""
        return cls(treedef.flatten_up_to(tree), treedef)

    @classmethod
    def given(cls, treedef: PyTreeDef, tree: optax.Params, name: str) -> "Leaves":
        """As `up_to`, of an argument: FlowError, by its name, where it does not fit."""
        try:
            return cls.up_to(treedef, tree)
        except (ValueError, TypeError, KeyError) as error:
            raise FlowError(f"{name}={tree!r} must be a tree like the params: {error}") from error

    def tree(self) -> Any:
        """The leaves in their tree again."""
        return self.treedef.unflatten(self.values)

    def present(self) -> list[Any]:
        """The leaves that are there."""
        return [value for value in self.values if not is_missing(value)]

    def with_stacks(self, stacks: Stacks) -> "Leaves":
        """The same leaves, with these stacks of some besides, as far as these are there."""
        there = {where: stack for where, stack in stacks.items() if not is_missing(stack)}
        return Leaves(self.held, self.treedef, {**self.stacks, **there})

    def only(self, there: Callable[[int], bool]) -> "Leaves":
        """The leaves at some places, the others missing; with the stacks that are of these."""
        values = (x if there(i) else MISSING for i, x in enumerate(self.held))
        stacks = {where: x for where, x in self.stacks.items() if all(map(there, where))}
        return Leaves(values, self.treedef, stacks)

    def moved(self, places: Mapping[int, int], treedef: PyTreeDef | None = None) -> "Leaves":
        """The leaves at other places: from the old to the new ones, of this or another tree."""
        treedef = treedef or self.treedef
        values: list[Any] = [MISSING] * treedef.num_leaves
        for old, new in places.items():
            values[new] = self.held[old]
        stacks = {
            tuple(places[i] for i in where): stack
            for where, stack in self.stacks.items()
            if all(i in places for i in where)
        }
        return Leaves(values, treedef, stacks)

    def abstract(self, index: int) -> Any:
        """The leaf of that index, of which only shapes and dtypes are to be read."""
        leaf = self.held[index]
        return leaf.abstract if type(leaf) is Part else leaf

    def map(self, fn: Callable[..., Any], *others: "Leaves") -> "Leaves":
        """Applies `fn` leaf by leaf; a leaf that is missing in one is missing in the result."""
        rows = zip(self.values, *(other.values for other in others), strict=True)
        return Leaves((_unless_missing(fn, row) for row in rows), self.treedef)

    def once(self, fn: Callable[[Any], Any]) -> "Leaves":
        """An elementwise function of every leaf, and of every stack; asked again, the same."""
        here = trace_state()
        if self._made is None or self._made[0] != here or self._made[1] is not fn:
            self._made = here, fn, self._mapped(fn)
        return self._made[2]

    def _mapped(self, fn: Callable[[Any], Any]) -> "Leaves":
        done: dict[int, Any] = {}

        def of_stack(stack: Any) -> Any:
            if id(stack) not in done:
                done[id(stack)] = fn(stack)
            return done[id(stack)]

        def of_held(leaf: Any) -> Any:
            if type(leaf) is not Part:
                return leaf if is_missing(leaf) else fn(leaf)
            if id(leaf.of) not in done:
                done[id(leaf.of)] = leaf.of.with_stack(of_stack(leaf.of.stack))
            return Part(done[id(leaf.of)], leaf.number)

        stacks = {where: of_stack(stack) for where, stack in self.stacks.items()}
        return Leaves(map(of_held, self.held), self.treedef, stacks)

    def path(self, index: int) -> str:
        """How the leaf of that index is reached in the tree, for messages."""
        numbered = self.treedef.unflatten(range(len(self)))
        path, _ = jax.tree_util.tree_flatten_with_path(numbered)[0][index]
        return jax.tree_util.keystr(path) or "(the only leaf)"

    def __len__(self) -> int:
        return len(self.held)

    def tree_flatten(self) -> tuple[tuple[Any, ...], PyTreeDef]:
        """For jax: the leaves are the children, the structure is static."""
        return self.values, self.treedef

    @classmethod
    def tree_unflatten(cls, treedef: PyTreeDef, values: Sequence[Any]) -> "Leaves":
        """For jax."""
        return cls(values, treedef)


def either(*trees: Leaves) -> Leaves:
    """At each leaf that of the first tree that has one; stacks of leaves that are all of one."""
    columns = list(zip(*(tree.held for tree in trees), strict=True))
    chosen = [next((k for k, x in enumerate(c) if not is_missing(x)), 0) for c in columns]
    stacks = {
        where: stack
        for k, tree in enumerate(trees)
        for where, stack in tree.stacks.items()
        if all(chosen[i] == k for i in where)
    }
    values = (column[k] for column, k in zip(columns, chosen, strict=True))
    return Leaves(values, trees[0].treedef, stacks)


def _unless_missing(fn: Callable[..., Any], row: Sequence[Any]) -> Any:
    return MISSING if any(map(is_missing, row)) else fn(*row)


def seen_anew(value: Any) -> Any:
    """An array of NumPy's as an object that JAX has not seen yet; anything else as it is.

    JAX keeps the precision in which it first saw an array for as long as a program that it is a
    constant of lives: without float64 first, and half of the next program is in float32.
    """
    return value.view() if type(value) is np.ndarray else value


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """The dtype in which leaves of `dtype` are computed and accumulated."""
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        return jnp.dtype(jnp.float32)  # JAX promotes no 8-bit float by itself
    return promoting(jnp.promote_types)(dtype, jnp.float32)


def working(leaf: Any) -> Any:
    """The leaf, array or abstract or a tree of these, in the precision of computation."""
    if not hasattr(leaf, "dtype"):
        is_number = isinstance(leaf, int | float | complex | str)
        return leaf if is_number else jax.tree.map(working, leaf)
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf
    dtype = at_least_float32(leaf.dtype)
    if dtype == leaf.dtype:
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf.update(dtype=dtype)
    return leaf.astype(dtype)


def scalar_dtype(leaves: Iterable[Any]) -> jnp.dtype:
    """The real dtype of scalars that accompany these leaves: the widest, at least float32."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(list(leaves)) if hasattr(leaf, "dtype")]
    real = [jnp.finfo(dtype).dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)]
    return promoting(jnp.result_type)(jnp.float32, *map(at_least_float32, real))


def is_strong_scalar(value: object) -> bool:
    """True for scalars whose dtype would otherwise decide the dtype of a result."""
    if isinstance(value, np.ndarray | np.generic | jax.Array | jax.ShapeDtypeStruct):
        return bool(jnp.issubdtype(value.dtype, jnp.inexact))
    return False


def fit_scalar(scalar: jax.Array, leaf_dtype: DTypeLike) -> jax.Array:
    """A scalar in the precision of the leaf that it meets, so that it never widens the leaf."""
    if not jnp.issubdtype(leaf_dtype, jnp.inexact):
        return scalar
    if jnp.issubdtype(scalar.dtype, jnp.complexfloating):
        return scalar
    return jnp.asarray(scalar, jnp.finfo(leaf_dtype).dtype)


def promoting(fn: Callable[Given, Value]) -> Callable[Given, Value]:
    """`fn` of counts, flags and floats together, also where the program forbids JAX to mix them.

    Signals have rules of their own, by which a scalar never widens a leaf; under
    `jax_numpy_dtype_promotion="strict"` the arithmetic between them stays what it is. What a user
    lifts is left to the user's setting.
    """

    @functools.wraps(fn)
    def promoted(*values: Given.args, **constants: Given.kwargs) -> Value:
        if jax.config.jax_numpy_dtype_promotion == "standard":  # type: ignore[attr-defined]
            return fn(*values, **constants)
        with jax.numpy_dtype_promotion("standard"):
            return fn(*values, **constants)

    return promoted
