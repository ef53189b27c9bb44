"""gradchain: the optimizers of the literature as compositions that read like their papers."""

from . import catalogue, optimizers, schedules, transforms
from .catalogue import find, get_method, get_schedule
from .objectives import objective_gradients
from .transforms import (
    chain,
    flow,
    named,
    tap,
)
from .transforms.control import inject_hyperparams
from .transforms.inspection import (
    describe,
    draw,
    observe,
    observed,
)
from .transforms.notation import eval_params, needs

__all__ = [
    "catalogue",
    "chain",
    "describe",
    "draw",
    "eval_params",
    "find",
    "flow",
    "get_method",
    "get_schedule",
    "inject_hyperparams",
    "named",
    "needs",
    "objective_gradients",
    "observe",
    "observed",
    "optimizers",
    "schedules",
    "tap",
    "transforms",
]
