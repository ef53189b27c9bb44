"""Momentum methods."""

from .adaptive_braking import (
    adaptive_braking,
    scale_by_braking,
)
from .heavy_ball_step_decay import (
    heavy_ball_step_decay,
)
from .lars import (
    lars,
)
from .sgd import (
    scale_by_sgd,
    sgd,
)
from .sgd_sai import (
    scale_by_sai,
    sgd_sai,
)
from .sgdm_random_scaling import (
    scale_by_shrinking_momentum,
    sgdm_random_scaling,
)
from .sgdp import (
    scale_by_sgdp,
    sgdp,
)
from .sgdw import (
    sgdw,
)
from .stochastic_heavy_ball import (
    stochastic_heavy_ball,
)

__all__ = [
    "adaptive_braking",
    "heavy_ball_step_decay",
    "lars",
    "scale_by_braking",
    "scale_by_sai",
    "scale_by_sgd",
    "scale_by_sgdp",
    "scale_by_shrinking_momentum",
    "sgd",
    "sgd_sai",
    "sgdm_random_scaling",
    "sgdp",
    "sgdw",
    "stochastic_heavy_ball",
]
