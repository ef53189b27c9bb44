"""Comparing methods: scores by the time to a target, and methods with nothing left to tune."""

from .algoperf_scoring import (
    Profile,
    algoperf_score,
    performance_profile,
    require_variants,
    time_to_target,
)
from .hyperparameter_free import calibrated, learning_rate_free_methods, workload_agnostic

__all__ = [
    "Profile",
    "algoperf_score",
    "calibrated",
    "learning_rate_free_methods",
    "performance_profile",
    "require_variants",
    "time_to_target",
    "workload_agnostic",
]
