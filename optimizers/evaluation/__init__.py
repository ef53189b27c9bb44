"""Comparing methods: scores by the time to a target."""

from .algoperf_scoring import (
    Profile,
    algoperf_score,
    performance_profile,
    require_variants,
    time_to_target,
)

__all__ = [
    "Profile",
    "algoperf_score",
    "performance_profile",
    "require_variants",
    "time_to_target",
]
