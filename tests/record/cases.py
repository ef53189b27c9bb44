"""What a recorded run is: its setting, its parameters, its learning rates."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SMALL = {"w": (4, 3), "b": (3,), "s": ()}
MIXED = {"w": (4, 3), "b": (3,), "s": (), "k": (2, 3, 2)}
MATRICES = {"w": (6, 4), "u": (3, 5), "b": (4,)}
WEIGHTS = {"w": (6, 5), "k": (4, 3, 2), "b": (5,), "s": ()}
VECTORS = {"b": (5,), "s": ()}

SQUARE_ROOT = [0.05 / (1 + 0.4 * t) ** 0.5 for t in range(8)]
DROP = [0.05] * 3 + [0.02] * 3 + [0.005] * 2
WARMUP = [0.01, 0.02, 0.03, 0.04, 0.05, 0.04, 0.03, 0.02]

BETAS = {"b1": 0.8, "b2": 0.95}


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
      method: method of the catalogue.
      case: name of the setting.
      run: parameters -> something with `step(gradients, count)` and `params()`.
      kwargs: the setting in our argument names.
      package: distribution that is run, or None where `run` is torch or optax itself.
      shapes: leaf -> shape.
      steps: number of updates.
      api: our function, where it is not the method.
      kind: `gradients`, `quadratic` (stored as gradients, with losses) or `separable`.
      rtol: relative tolerance.
      notes: what is special.
      draws: (parameters, seed) -> random draws of the run, where it makes any.
    """

    method: str
    case: str
    run: Callable[..., Any]
    kwargs: dict[str, Any]
    package: str
    shapes: dict[str, tuple[int, ...]] = field(default_factory=lambda: MIXED)
    steps: int = 8
    api: str | None = None
    kind: str = "gradients"
    rtol: float = 1e-6
    notes: str = ""
    draws: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.method}__{self.case}"


CASES: list[Case] = []


def case(method, name, run, kwargs, package, **more):
    CASES.append(Case(method, name, run, kwargs, package, **more))
