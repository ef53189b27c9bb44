"""Reading signals from outside: `observe` and `observed`."""

from collections.abc import Iterator
from typing import Any

import optax

from .build import Flow, chain
from .errors import FlowError
from .layout import OBSERVED
from .signal import Delay, Slot


def observe(transformation: optax.GradientTransformation, *names: str) -> Flow:
    """The same transformation, which keeps the named signals in its state for logging.

    A name is that of a `tap`, or of a state (`"mu"`, `"scale_by_adam.mu"`), whose newest value is
    then read. Without names, all taps are kept. Read them with `observed(state)`.

    Args:
      transformation: what to observe.
      *names: taps or states.

    Returns:
      A transformation with the same updates.

    Raises:
      FlowError: for a name that it does not have; the message lists those that it has.
    """
    opt = transformation if isinstance(transformation, Flow) else chain(transformation)
    available = dict(_observable(opt))
    wanted = names or tuple(opt.graph.taps)
    for name in wanted:
        if name not in available:
            known = ", ".join(sorted(available)) or "nothing"
            raise FlowError(f"{opt.label} has no signal named {name!r} to observe; it has {known}")
    return opt.watching({name: available[name] for name in wanted})


def observed(state: Any) -> dict[str, Any]:
    """The signals that `observe` keeps in a state, by name, as of the last update.

    Args:
      state: the state of an observed transformation, however it is wrapped.
    """
    found: dict[str, Any] = {}
    pending = [state]
    while pending:
        node = pending.pop()
        if hasattr(node, "_fields") and OBSERVED in node._fields:
            found.update(getattr(node, OBSERVED))
        if isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, tuple | list):
            pending.extend(node)
    return found


def _observable(opt: Flow) -> Iterator[tuple[str, Any]]:
    for path, slot in opt.runner.layout.slots().items():
        newest = _newest(slot)
        yield path.rsplit(".", 1)[-1], newest
        yield path, newest
    yield from opt.graph.taps.items()


def _newest(slot: Slot) -> Any:
    """What the state becomes at this step: what is written to a delay, what a machine gives."""
    return slot.written if isinstance(slot, Delay) else slot
