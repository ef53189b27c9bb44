"""The primitives, and the flow notation that joins them."""

from .ema import debias, ema, one_minus_power, trace
from .notation.build import (
    Flow,
    chain,
    delay,
    flow,
    named,
    scheduled,
    stateful,
    step_count,
    tap,
)
from .notation.errors import FlowError
from .notation.evaluation import eval_params
from .notation.functions import *  # noqa: F403
from .notation.needs import needs
from .notation.observe import observe, observed
from .scaling import add_decayed_weights, scale_by_learning_rate
