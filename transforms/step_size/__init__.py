"""How far to go: learning rates, decay, multipliers, Polyak steps, line searches."""

from ..accumulate.sums import SquaredNorm
from .adgd import adgd_step_size
from .distance import largest_distance, leaf_squared_norm
from .leaf_multipliers import leaf_multipliers
from .line_search import backtracking, keeps_loss, loss_change
from .polyak import quadratic_polyak_step, with_polyak_step
from .relative import relative_rate
from .scaling import scale_by_learning_rate
from .stable_decay import stable_decay, stable_weight_decay, typical_gradient
from .weight_decay import DecayForm, decay_weights
from .width import mup_init_scale, mup_readout_multiplier, mup_width_multipliers

__all__ = [
    "DecayForm",
    "SquaredNorm",
    "adgd_step_size",
    "backtracking",
    "decay_weights",
    "keeps_loss",
    "largest_distance",
    "leaf_multipliers",
    "leaf_squared_norm",
    "loss_change",
    "mup_init_scale",
    "mup_readout_multiplier",
    "mup_width_multipliers",
    "quadratic_polyak_step",
    "relative_rate",
    "scale_by_learning_rate",
    "stable_decay",
    "stable_weight_decay",
    "typical_gradient",
    "with_polyak_step",
]
