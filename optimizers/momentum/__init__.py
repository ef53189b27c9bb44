"""Momentum methods."""

from .adaptive_braking import (
    adaptive_braking,
    scale_by_braking,
)
from .heavy_ball_step_decay import (
    heavy_ball_step_decay,
)
from .sgd import (
    scale_by_sgd,
    sgd,
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
    "scale_by_braking",
    "scale_by_sgd",
    "scale_by_sgdp",
    "scale_by_shrinking_momentum",
    "sgd",
    "sgdm_random_scaling",
    "sgdp",
    "sgdw",
    "stochastic_heavy_ball",
]
