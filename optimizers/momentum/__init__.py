"""Momentum, and the signs of it: one average of the gradient, no second moment."""

from ...transforms.directions import scale_by_lion
from .adaptive_braking import adaptive_braking, scale_by_braking
from .composite_sgd import composite_sgd
from .gravity import gravity, scale_by_gravity
from .heavy_ball_step_decay import heavy_ball_step_decay
from .lars import lars
from .lion import lion
from .lion_k import lion_k, scale_by_lion_k
from .sgd import scale_by_sgd, sgd
from .sgd_sai import scale_by_sai, sgd_sai
from .sgdp import scale_by_sgdp, sgdp
from .sgdw import sgdw
from .signum import scale_by_signum, signum
from .stochastic_heavy_ball import stochastic_heavy_ball

__all__ = [
    "adaptive_braking",
    "composite_sgd",
    "gravity",
    "heavy_ball_step_decay",
    "lars",
    "lion",
    "lion_k",
    "scale_by_braking",
    "scale_by_gravity",
    "scale_by_lion",
    "scale_by_lion_k",
    "scale_by_sai",
    "scale_by_sgd",
    "scale_by_sgdp",
    "scale_by_signum",
    "sgd",
    "sgd_sai",
    "sgdp",
    "sgdw",
    "signum",
    "stochastic_heavy_ball",
]
