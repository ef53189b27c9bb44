"""gradchain: the optimizers of the literature as compositions that read like their papers."""

import importlib
from typing import TYPE_CHECKING, Any

from . import transforms
from .compiling import compiler_options
from .transforms import (
    chain,
    flow,
    masked,
    named,
    partition,
    tap,
)
from .transforms.control import accumulate, inject_hyperparams
from .transforms.notation import eval_params, needs, restore_by_name

if TYPE_CHECKING:
    from . import catalogue, federated, layers, optimizers, schedules, training
    from .catalogue import find, get_method, get_schedule
    from .objectives import objective_gradients
    from .optimizers import measure
    from .sweeping import sweep
    from .transforms.inspection import describe, draw, observe, observed

__version__ = "0.1.0"

__all__ = [
    "accumulate",
    "catalogue",
    "chain",
    "compiler_options",
    "describe",
    "draw",
    "eval_params",
    "federated",
    "find",
    "flow",
    "get_method",
    "get_schedule",
    "inject_hyperparams",
    "layers",
    "masked",
    "measure",
    "named",
    "needs",
    "objective_gradients",
    "observe",
    "observed",
    "optimizers",
    "partition",
    "restore_by_name",
    "schedules",
    "sweep",
    "tap",
    "training",
    "transforms",
]


_WHERE = {
    "describe": "transforms.inspection",
    "draw": "transforms.inspection",
    "find": "catalogue",
    "get_method": "catalogue",
    "get_schedule": "catalogue",
    "measure": "optimizers",
    "objective_gradients": "objectives",
    "observe": "transforms.inspection",
    "observed": "transforms.inspection",
    "sweep": "sweeping",
}
"""The modules of what is not imported before it is asked for, beside modules of its own name."""


def __getattr__(name: str) -> Any:
    # Hundreds of methods are not loaded for a flow, nor Flax for anything but training loops.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_WHERE.get(name, name)}", __name__)
    value = getattr(module, name) if name in _WHERE else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
