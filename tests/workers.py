"""Workers in both worlds: on the devices of a mesh, types checked, and stacked on one device."""

from collections.abc import Callable
from typing import Any

import jax

AXIS = "workers"


def on_mesh(train: Callable[..., Any], own: Any, shared: Any, agree: bool = True) -> Any:
    """`train(own, shared)` on as many devices as there are workers, in `jax.shard_map`.

    Args:
      train: what one worker does.
      own: a tree whose arrays have the workers on the leading axis.
      shared: what all have.
      agree: whether what it returns is typed as the same on all workers; else it is stacked.
    """
    count = len(jax.tree.leaves(own)[0])
    mesh = jax.make_mesh((count,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))

    def run(own: Any, shared: Any) -> Any:
        found = train(jax.tree.map(lambda x: x[0], own), shared)
        return found if agree else jax.tree.map(lambda x: x[None], found)

    specs = jax.P(AXIS), jax.P()
    out = jax.P() if agree else jax.P(AXIS)
    mapped = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=out, check_vma=True)
    return jax.jit(mapped)(own, shared)


def stacked(train: Callable[..., Any], own: Any, shared: Any, agree: bool = True) -> Any:
    """The same under `jax.vmap`; what they agree on is the first worker's."""
    found = jax.jit(jax.vmap(train, in_axes=(0, None), axis_name=AXIS))(own, shared)
    return jax.tree.map(lambda x: x[0], found) if agree else found


WORLDS = {"mesh": on_mesh, "stacked": stacked}
