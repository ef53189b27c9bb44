"""Where states lie on a mesh of automatic axes: from the first step on where they stay.

The compiler chooses how what it computes is spread, and says so in no type. What `init` makes of
params on such a mesh would lie otherwise than what the first step leaves, which would be compiled
again for it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from .members import inside_shard_map
from .paths import named_leaves, plain_path
from .sharding import explicit_axes

State = TypeVar("State")


def placed(init: Callable[[Any], State], params: optax.Params) -> State:
    """The first state of params on a mesh of automatic axes.

    It lies as on explicit ones, where it follows from the params; what follows from none is spread
    over the axes of the params if it takes more of a device than they do. Traced, what is like a
    param lies like it.
    """
    mesh = _automatic_mesh(params)
    if mesh is None:
        return _like_params(init(params), params)
    kinds = (AxisType.Explicit,) * len(mesh.axis_names)
    explicit = Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
    try:
        with jax.set_mesh(explicit):
            state = init(jax.tree.map(partial(_seen_on, explicit), params))
    except Exception:  # whatever functions of the user's raise where they meet explicit axes
        return init(params)
    return _lying_on(mesh, state, params)


def kept_in_place(new: State, old: object) -> State:
    """What a step traced, each leaf where the one of the other tree lies.

    Args:
      new: updates and state.
      old: params, or gradients, and the state before.
    """
    if not _may_move(new):
        return new
    olds, (news, structure) = jax.tree.leaves(old), jax.tree.flatten(new)
    return jax.tree.unflatten(structure, [_beside(*pair) for pair in zip(news, olds, strict=True)])


def _like_params(state: State, params: optax.Params) -> State:
    if not _may_move(state):
        return state
    leaves, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(structure, map(_beside, leaves, _like(state, params)))


def _may_move(state: object) -> bool:
    """Whether a compiler is to say where the leaves lie, and no type does."""
    leaves = jax.tree.leaves(state)
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    if not traced or jax.device_count() == 1 or inside_shard_map():
        return False
    return not any(explicit_axes(leaf) for leaf in leaves)


def _beside(leaf: Any, other: Any) -> Any:
    """The leaf, spread as the other is, if that is an array of its shape."""
    if not isinstance(leaf, jax.core.Tracer) or not leaf.ndim:
        return leaf
    if not isinstance(other, jax.Array) or other.shape != leaf.shape:
        return leaf
    from .alike import spread_alike  # brings in a compiler, see `import_extensions`

    return spread_alike(other, leaf)


def _like(state: object, params: optax.Params | None) -> list[Any]:
    """For each leaf the param that it has the name and the shape of, or None."""
    known = named_leaves(params)
    lengths = sorted({len(path) for path in known}, reverse=True)

    def of(path: tuple[str, ...], leaf: Any) -> Any:
        found = (known.get(path[len(path) - length :]) for length in lengths)
        arrays = (p for p in found if isinstance(p, jax.Array))
        return next((p for p in arrays if p.shape == jnp.shape(leaf)), None)

    found, _ = jax.tree_util.tree_flatten_with_path(state)
    return [of(tuple(map(str, plain_path(path))), leaf) for path, leaf in found]


def _automatic_mesh(params: optax.Params) -> Mesh | None:
    """The mesh of automatic axes that all params lie on, where nothing is being traced."""
    arrays = [leaf for leaf in jax.tree.leaves(params) if isinstance(leaf, jax.Array)]
    if any(isinstance(leaf, jax.core.Tracer) for leaf in (*arrays, jnp.zeros(()))):
        return None
    lying = (leaf.sharding for leaf in arrays)
    meshes = {where.mesh for where in lying if isinstance(where, NamedSharding)}
    if len(meshes) != 1:
        return None
    (mesh,) = meshes
    if not isinstance(mesh, Mesh) or set(mesh.axis_types) != {AxisType.Auto}:
        return None
    return mesh if mesh.size > 1 else None


def _spec(leaf: Any) -> PartitionSpec | None:
    is_named = isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding)
    return leaf.sharding.spec if is_named else None


def _axes(spec: PartitionSpec) -> list[str]:
    """The mesh axes in a spec."""
    entries = [entry if isinstance(entry, tuple) else (entry,) for entry in spec]
    return [axis for entry in entries for axis in entry if axis is not None]


def _seen_on(mesh: Mesh, leaf: Any) -> Any:
    """The same array, in place, on a mesh of other kinds of axes."""
    spec = _spec(leaf)
    if spec is None:
        return leaf
    sharding = NamedSharding(mesh, spec, memory_kind=leaf.sharding.memory_kind)
    parts = [shard.data for shard in leaf.addressable_shards]
    return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)


def _lying_on(mesh: Mesh, state: State, params: optax.Params) -> State:
    """The state, spread over automatic axes."""
    given = [leaf for leaf in jax.tree.leaves(params) if _spec(leaf) is not None]
    share = max(prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in given)
    axes = {axis: mesh.shape[axis] for leaf in given for axis in _axes(leaf.sharding.spec)}
    leaves, structure = jax.tree.flatten(state)

    def lying(leaf: Any, param: Any) -> Any:
        spec = _shortest(_spec(leaf) or PartitionSpec())
        if param is None and not _axes(spec) and leaf.size > share:
            spec = _spread(leaf.shape, axes)
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree.unflatten(structure, map(lying, leaves, _like(state, params)))


def _spread(shape: tuple[int, ...], axes: Mapping[str, int]) -> PartitionSpec:
    """The largest axes first, each over the longest side that it divides."""
    left, given = list(shape), [list[str]() for _ in shape]
    for axis in sorted(axes, key=lambda axis: -axes[axis]):
        sides = [i for i, side in enumerate(left) if side and side % axes[axis] == 0]
        if sides:
            longest = max(sides, key=lambda i: left[i])
            left[longest] //= axes[axis]
            given[longest].append(axis)
    alone = (names[0] if len(names) == 1 else tuple(names) or None for names in given)
    return _shortest(PartitionSpec(*alone))


def _shortest(spec: PartitionSpec) -> PartitionSpec:
    """As a compiled step gives it: what it is called otherwise, the next step looks up anew."""
    entries = list(spec)
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)
