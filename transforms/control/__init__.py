"""Which transformation runs, when, on which leaves and on which loss."""

from .accumulated import accumulate
from .branch import either, on_leaves
from .finite_losses import at_finite_losses
from .inject import inject_hyperparams
from .iterated import iterated
from .masked import masked, partition
from .objectives import combine, stacked_gradients
from .periods import every, when
from .prediction import at_params
from .restarts import reset_every, reset_when

__all__ = [
    "accumulate",
    "at_finite_losses",
    "at_params",
    "combine",
    "either",
    "every",
    "inject_hyperparams",
    "iterated",
    "masked",
    "on_leaves",
    "partition",
    "reset_every",
    "reset_when",
    "stacked_gradients",
    "when",
]
