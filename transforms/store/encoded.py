"""A transformation whose state is kept in another form between the steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation import draws
from ..notation.cell import Cell, cell_of
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.paths import joined, plain_path
from ..notation.values import Leaves
from .signs import never_negative

Select = Callable[[tuple[Any, ...], Any], bool]
"""`(path, leaf) -> bool`: which leaves of the state; of a leaf, shape and dtype alone are used."""


@dataclass(frozen=True)
class Coding:
    """How a leaf is kept.

    Attributes:
      encode: `(path, leaf, key) -> what is kept`.
      decode: `(path, kept, abstract leaf) -> leaf`.
      is_unsigned: `path -> bool`: whether it cannot hold negative entries.
    """

    encode: Callable[[Any, Any, Any], Any]
    decode: Callable[[Any, Any, Any], Any]
    is_unsigned: Callable[[Any], bool] = lambda path: False


def encoded_cell(
    inner: optax.GradientTransformation, select: Callable[[Leaves], Select], coding: Coding
) -> Cell:
    """The node that decodes the inner state, takes a step, and encodes it again.

    Its second argument, where it has one, is a key for the encoding.

    Args:
      inner: any transformation.
      select: from the incoming signal to which leaves of the state are encoded.
      coding: how.
    """
    cell = cell_of(inner)

    def encoded(state: Any, value: Leaves, key: Any) -> Any:
        chosen = select(value)
        paths, structure = jax.tree_util.tree_flatten_with_path(state)
        kept = []
        for i, (path, leaf) in enumerate(paths):
            names = plain_path(path)
            own = None if key is None else draws.fold_in(key, i)
            kept.append(coding.encode(names, leaf, own) if chosen(names, leaf) else leaf)
        return jax.tree.unflatten(structure, kept)

    def decoded(kept: Any, context: Context, value: Leaves) -> Any:
        chosen = select(value)
        shapes = jax.eval_shape(lambda v: cell.init(context, v), value)
        structure: jax.tree_util.PyTreeDef
        paths, structure = jax.tree_util.tree_flatten_with_path(shapes)
        leaves = [
            coding.decode(plain_path(path), x, leaf) if chosen(plain_path(path), leaf) else x
            for (path, leaf), x in zip(paths, structure.flatten_up_to(kept), strict=True)
        ]
        return jax.tree.unflatten(structure, leaves)

    def check_signs(context: Context, state: Any, value: Leaves) -> None:
        chosen = select(value)

        def is_unsigned(path: Any, leaf: Any) -> bool:
            return chosen(plain_path(path), leaf) and coding.is_unsigned(plain_path(path))

        unsigned = jax.tree_util.tree_map_with_path(is_unsigned, state)
        if not any(jax.tree.leaves(unsigned)):
            return
        found = never_negative(lambda now: cell.update(context, now, value)[1], state, unsigned)
        for path, fits in jax.tree_util.tree_leaves_with_path(
            jax.tree.map(lambda wanted, is_so: is_so or not wanted, unsigned, found)
        ):
            if not fits:
                raise FlowError(
                    f"{context.label}: signed=False for the state "
                    f"{joined(plain_path(path))}: its operations do not exclude negative entries, "
                    "which the unsigned codebook cannot hold; let `signed` be True there, as a "
                    "function of the path does, `lambda path: 'nu' not in path`"
                )

    def init(context: Context, value: Leaves, *key: jax.Array) -> optax.OptState:
        # Zeros and other round numbers are exact in every form; no key is drawn from in init.
        return encoded(cell.init(context, value), value, None)

    def update(
        context: Context, kept: Any, value: Leaves, *key: jax.Array
    ) -> tuple[Leaves, optax.OptState]:
        state = decoded(kept, context, value)
        check_signs(context, state, value)
        out, state = cell.update(context, state, value)
        return out, encoded(state, value, key[0] if key else None)

    def out(context: Context, value: Leaves, *key: jax.ShapeDtypeStruct) -> Leaves:
        return cell.out(context, value) if cell.out else value

    return Cell(
        cell.name,
        init,
        update,
        out,
        cell.needs,
        cell.arguments,
        children=(inner,),
        inside=lambda state: (state,),
        stateless=cell.stateless,
        rebuild=lambda children: encoded_cell(children[0], select, coding),
    )


def large_floats(min_size: int) -> Callable[[Leaves], Select]:
    """Selects floating leaves with the shape of a param and at least so many entries."""

    def of(value: Leaves) -> Select:
        shapes = {jnp.shape(leaf) for leaf in value.present()}

        def chosen(path: tuple[Any, ...], leaf: jax.Array) -> bool:
            is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
            return bool(is_float and leaf.shape in shapes and leaf.size >= min_size)

        return chosen

    return of


def selector(select: Select | None, min_size: int) -> Callable[[Leaves], Select]:
    """The user's selection, or that of `large_floats`; never anything but floats."""
    if select is None:
        return large_floats(min_size)

    def chosen(path: tuple[Any, ...], leaf: Any) -> bool:
        return bool(jnp.issubdtype(leaf.dtype, jnp.floating) and select(path, leaf))

    return lambda value: chosen
