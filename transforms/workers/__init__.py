"""Workers that lie along an axis: what is a worker's own, and what they exchange."""

from .coins import coin
from .operators import ascending, operator_at
from .rounds import Round, local_round
from .signals import exchanged, gathered_over, mean_over, mean_when, of_worker, total_over

__all__ = [
    "Round",
    "ascending",
    "coin",
    "exchanged",
    "gathered_over",
    "local_round",
    "mean_over",
    "mean_when",
    "of_worker",
    "operator_at",
    "total_over",
]
