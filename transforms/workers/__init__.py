"""Workers that lie along an axis: what is a worker's own, and what they exchange."""

from .signals import exchanged, gathered_over, mean_over, of_worker

__all__ = ["exchanged", "gathered_over", "mean_over", "of_worker"]
