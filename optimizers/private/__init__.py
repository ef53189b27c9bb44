"""Differential privacy: no single example shows in what is learned, by clipping and noise."""

from .clipped_sum import clipped_gradient_sum, poisson_sample
from .diff2 import diff2
from .dp_sgd import add_private_noise, differentially_private_aggregate, dp_sgd

__all__ = [
    "add_private_noise",
    "clipped_gradient_sum",
    "diff2",
    "differentially_private_aggregate",
    "dp_sgd",
    "poisson_sample",
]
