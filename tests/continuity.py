"""A run that is cut in the middle of its method's periods, and goes on in another process.

The process that was cut keeps what a run without interruption would have come to; this script is
the one that goes on:

    python tests/continuity.py FOLDER adam sophia_h
"""

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import compilation

if __name__ == "__main__":
    compilation.set_environment()  # before JAX is imported

import jax
import orbax.checkpoint as ocp
from gradchain.transforms.notation import Period, Step
from samples import arguments_of, method_named, sample
from subjects import small_tree, step_of

PERIOD = 4
"""Of everything that has one: it is cut between two refreshes, and passes the next."""
CUT, END = 2, 6


def short_periods(name: str) -> dict[str, int]:
    """The arguments of a method that say when something happens, where that is late."""
    found = arguments_of(name)
    parameters = inspect.signature(method_named(name).factory).parameters.values()
    return {
        p.name: PERIOD
        for p in parameters
        if any(p.annotation in (kind, kind | None) for kind in (Period, Step))
        and (found.get(p.name, p.default) or 0) > PERIOD
    }


def method(name: str) -> Any:
    """The method as the tests build it, with short periods."""
    return sample(name, **short_periods(name))


@functools.cache
def compiled_step(name: str) -> Callable[..., tuple[Any, Any]]:
    """The step of a method, for both parts of its run."""
    return jax.jit(step_of(method(name)))


def advanced(name: str, params: Any, state: Any, steps: int) -> tuple[Any, Any]:
    """Params and state after some more steps."""
    for _ in range(steps):
        params, state = compiled_step(name)(params, state)
    return params, state


def start(name: str) -> tuple[Any, Any]:
    """Params and state before the first step."""
    params = small_tree()
    return params, method(name).init(params)


def cut(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Saves all runs at the cut; returns what they come to without it."""
    middle = {name: advanced(name, *start(name), CUT) for name in names}
    save(folder / "middle", middle)
    return {name: advanced(name, *found, END - CUT) for name, found in middle.items()}


def go_on(folder: Path, names: Sequence[str]) -> None:
    """Restores all runs and takes them to their end."""
    found = restore(folder / "middle", names)
    save(folder / "end", {name: advanced(name, *found[name], END - CUT) for name in names})


def save(folder: Path, runs: Any) -> None:
    """All runs as one checkpoint."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.resolve(), runs)
        checkpointer.wait_until_finished()


def restore(folder: Path, names: Sequence[str]) -> Any:
    """The runs of a checkpoint, in the containers of the methods."""
    like = jax.eval_shape(lambda: {name: start(name) for name in names})
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder.resolve(), like)


if __name__ == "__main__":
    go_on(Path(sys.argv[1]), sys.argv[2:])
