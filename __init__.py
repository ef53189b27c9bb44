"""gradchain: the optimizers of the literature as compositions that read like their papers."""

import importlib
from typing import TYPE_CHECKING, Any

from . import catalogue, federated, layers, optimizers, schedules, transforms
from .catalogue import find, get_method, get_schedule
from .compiling import compiler_options
from .objectives import objective_gradients
from .optimizers import measure
from .sweeping import sweep
from .transforms import (
    chain,
    flow,
    masked,
    named,
    partition,
    tap,
)
from .transforms.control import accumulate, inject_hyperparams
from .transforms.inspection import (
    describe,
    draw,
    observe,
    observed,
)
from .transforms.notation import eval_params, needs, restore_by_name

if TYPE_CHECKING:
    from . import training

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


def __getattr__(name: str) -> Any:
    # Training loops need Flax, which nothing else does: it is imported where it is asked for.
    if name == "training":
        return importlib.import_module(".training", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
