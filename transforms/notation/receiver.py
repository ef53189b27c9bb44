"""What a signal is sent through that reads other signals of the same step beside it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from .cell import Cell
from .hyperparameters import Scalar
from .signal import Signal
from .steps import stateful


@dataclass(frozen=True)
class Receiver:
    """Stands on the right of `>>`, like a transformation, within one step.

    Attributes:
      label: what made it.
      send: `(signal, name of the state) -> signal`.
      name: name of its state; None: a name of its own.
    """

    label: str
    send: Callable[[Signal, str | None], Signal]
    name: str | None = None

    def receive(self, signal: Signal) -> Signal:
        """`signal >> receiver`."""
        return self.send(signal, self.name)

    def under(self, name: str) -> "Receiver":
        """The same whose state has a given name."""
        return replace(self, name=name)


def through(label: str, cell: Cell, *others: Signal | Scalar, name: str | None = None) -> Receiver:
    """Sends signals through a cell that reads the others, too."""

    def send(signal: Signal, name: str | None) -> Signal:
        return stateful(cell, signal, *others, name=name)

    return Receiver(label, send, name)
