"""Samples of a posterior: gradient steps with noise, whose trajectory is what is wanted."""

from .fsgld import fsgld, gaussian_shard_approximation
from .sgld import sgld

__all__ = ["fsgld", "gaussian_shard_approximation", "sgld"]
