"""Orbax checkpoints of a run: all optimizers at one step, with their history."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


class Checkpoints:
    """The newest two checkpoints of a run; a context manager that waits for pending writes."""

    def __init__(self, folder: Path):
        # What a process that was killed in the middle of a save has left is of no use.
        options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
        self.manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.manager.close()

    def save(self, step: int, state: Any, history: dict[str, Any]) -> None:
        """Writes in the background; `state` may be donated to the next step at once."""
        if self.manager.latest_step() == step:
            return
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(_without_empty(state)),
            history=ocp.args.JsonSave(history),
        )
        self.manager.save(step, args=arguments)

    def restore(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Step, state and history of the newest checkpoint; None if there is none.

        Args:
          like: a state of the same structure, for shapes and dtypes.
        """
        step = self.manager.latest_step()
        if step is None:
            return None
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(_without_empty(like)), history=ocp.args.JsonRestore()
        )
        restored = self.manager.restore(step, args=arguments)
        state = jax.tree.map(_with_empty, restored.state, like, is_leaf=lambda leaf: leaf is None)
        return step, state, restored.history


def _without_empty(state: Any) -> Any:
    """The state with None for arrays without elements, which Orbax refuses to write."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else None, state)


def _with_empty(kept: Any, like: Any) -> Any:
    """What `_without_empty` left out; a state may have a None of its own."""
    return jnp.zeros(like.shape, like.dtype) if kept is None and like is not None else kept
