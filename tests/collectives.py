"""What the step of each method communicates on a mesh, and what a device holds of its state.

After a change that is meant, `python tests/collectives.py` writes the table anew; look at what
changed.
"""

import collections
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

PINNED = Path(__file__).parent / "collectives.json"
TABLE = json.loads(PINNED.read_text())

COLLECTIVES: dict[str, dict[str, int]] = TABLE["collectives"]
"""How often the compiled step communicates, by kind; no row: never."""

STATE_BYTES: dict[str, int] = TABLE["state_bytes"]
"""Bytes of state on a device where some of what is shaped like a param is not kept like it."""

KINDS = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


class OnMesh(NamedTuple):
    """A method after three steps on eight devices.

    Attributes:
      params: the params.
      collectives: how often its step communicates, by kind.
      state_bytes: bytes of state on one device.
      copied: whether a device holds more of something shaped like a param than of that param.
      types_before: of params and state, shardings included, before the first step.
      types_after: after the third.
    """

    params: Any
    collectives: dict[str, int]
    state_bytes: int
    copied: bool
    types_before: Any
    types_after: Any


def on_mesh(name: str) -> OnMesh:
    """One leaf over both axes of the mesh, one over the first, one over neither."""
    import jax
    from samples import sample
    from subjects import step_of

    opt = sample(name)
    mesh = _mesh("Explicit")
    with jax.set_mesh(mesh):
        params = _spread(mesh)
        state = opt.init(params)
        before = jax.tree.map(jax.typeof, (params, state))
        held = {leaf.shape: _held(leaf) // leaf.dtype.itemsize for leaf in params.values()}
        leaves = jax.tree.leaves(state)
        bytes_held = sum(map(_held, leaves))
        copied = any(
            _held(leaf) > leaf.dtype.itemsize * held[leaf.shape]
            for leaf in leaves
            if leaf.shape in held
        )
        step = jax.jit(step_of(opt)).lower(params, state).compile()
        for _ in range(3):
            params, state = step(params, state)
        after = jax.tree.map(jax.typeof, (params, state))
    return OnMesh(params, counted(step.as_text()), bytes_held, copied, before, after)


class OnAutomaticAxes(NamedTuple):
    """A method after three steps on eight devices, of whose axes no type says anything.

    Attributes:
      params: the params.
      bytes_before: bytes of state on one device before the first step.
      bytes_after: after the third.
      compilations: how often the step was compiled.
    """

    params: Any
    bytes_before: int
    bytes_after: int
    compilations: int


def on_automatic_axes(name: str) -> OnAutomaticAxes:
    """The same leaves, spread alike."""
    import jax
    from samples import sample
    from subjects import step_of

    opt = sample(name)
    params = _spread(_mesh("Auto"))
    state = opt.init(params)
    before = sum(map(_held, jax.tree.leaves(state)))
    step = jax.jit(step_of(opt))
    for _ in range(3):
        params, state = step(params, state)
    after = sum(map(_held, jax.tree.leaves(state)))
    return OnAutomaticAxes(params, before, after, step._cache_size())


def _mesh(kind: str) -> Any:
    import jax

    kinds = (getattr(jax.sharding.AxisType, kind),) * 2
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=kinds)


def _spread(mesh: Any) -> dict[str, Any]:
    import jax
    from shared import divisible_tree

    specs = {"w": jax.P("x", "y"), "u": jax.P(None, "x"), "b": jax.P("x"), "s": jax.P()}
    shardings = {k: jax.NamedSharding(mesh, spec) for k, spec in specs.items()}
    found: dict[str, Any] = jax.device_put(divisible_tree(), shardings)
    return found


def counted(program: str) -> dict[str, int]:
    """How often a compiled program communicates, by kind."""
    found = re.findall(rf" ({'|'.join(KINDS)})(?:-start)?\(", program)
    return dict(sorted(collections.Counter(found).items()))


def _held(leaf: Any) -> int:
    """Bytes of an array that one device holds."""
    size: int = leaf.dtype.itemsize
    for length in leaf.sharding.shard_shape(leaf.shape):
        size *= length
    return size


def write(table: dict[str, OnMesh]) -> None:
    """Pins what was found."""
    pinned = {
        "collectives": {n: found.collectives for n, found in table.items() if found.collectives},
        "state_bytes": {n: found.state_bytes for n, found in table.items() if found.copied},
    }
    PINNED.write_text(json.dumps(pinned, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    import compilation

    compilation.set_environment()
    from subjects import NAMES

    write({name: on_mesh(name) for name in NAMES})
