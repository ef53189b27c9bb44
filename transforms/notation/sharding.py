"""The sharding of single arrays under an explicit mesh."""

import jax
from jax.sharding import AxisType, PartitionSpec


def replicated(leaf: jax.Array) -> jax.Array:
    """The array on every device of an explicit mesh; as it is without one."""
    return jax.sharding.reshard(leaf, PartitionSpec()) if explicit_axes(leaf) else leaf


def resharded(leaf: jax.Array, like: jax.Array) -> jax.Array:
    """The array with the sharding of another of its shape, under an explicit mesh."""
    if not explicit_axes(like):
        return leaf
    return jax.sharding.reshard(leaf, jax.typeof(like).sharding)


def explicit_axes(leaf: jax.Array) -> tuple[str, ...]:
    """Names of the axes of the explicit mesh that an array lives on; none without one."""
    mesh = getattr(getattr(jax.typeof(leaf), "sharding", None), "mesh", None)
    if mesh is None or mesh.empty:
        return ()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)
