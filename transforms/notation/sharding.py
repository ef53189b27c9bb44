"""The sharding of single arrays under a mesh."""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def replicated(leaf: jax.Array) -> jax.Array:
    """The array on every device of an explicit mesh; as it is without one."""
    return jax.sharding.reshard(leaf, PartitionSpec()) if explicit_axes(leaf) else leaf


def resharded(leaf: jax.Array, like: jax.Array) -> jax.Array:
    """The array with the sharding of another of its shape, as far as that is known.

    It is under an explicit mesh, and under any other outside `jax.jit`, as in `init`; inside, the
    compiler chooses.
    """
    if explicit_axes(like):
        return jax.sharding.reshard(leaf, jax.typeof(like).sharding)
    lies_on = _mesh_sharding(like)
    known = lies_on is not None and not isinstance(leaf, jax.core.Tracer)
    return jax.device_put(leaf, lies_on) if known else leaf


def _mesh_sharding(leaf: Any) -> NamedSharding | None:
    """How numbers lie on several devices; None for what is on one, or yet to be computed."""
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
        return None
    found = leaf.sharding
    return found if isinstance(found, NamedSharding) and found.num_devices > 1 else None


def explicit_axes(leaf: jax.Array) -> tuple[str, ...]:
    """Names of the axes of the explicit mesh that an array lives on; none without one."""
    mesh = getattr(getattr(jax.typeof(leaf), "sharding", None), "mesh", None)
    if mesh is None or mesh.empty:
        return ()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def spec_of(leaf: jax.Array | jax.ShapeDtypeStruct) -> PartitionSpec | None:
    """How an array, or abstract value, is spread over an explicit mesh; None without one."""
    is_abstract = isinstance(leaf, jax.ShapeDtypeStruct)
    sharding = leaf.sharding if is_abstract else getattr(jax.typeof(leaf), "sharding", None)
    mesh = getattr(sharding, "mesh", None)
    if mesh is None or mesh.empty or AxisType.Explicit not in mesh.axis_types:
        return None
    spec: PartitionSpec | None = getattr(sharding, "spec", None)
    return spec
