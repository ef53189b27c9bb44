"""Flat minima: points are sought whose neighbourhood has a low loss, too."""

from .flooding import flood, flooding
from .gradient_regularization import gradient_regularization
from .mesa import mesa, params_ema
from .saf import LogitHistory, logit_history, saf, saf_active
from .sam import sam
from .trajectory import trajectory_loss

__all__ = [
    "LogitHistory",
    "flood",
    "flooding",
    "gradient_regularization",
    "logit_history",
    "mesa",
    "params_ema",
    "saf",
    "saf_active",
    "sam",
    "trajectory_loss",
]
