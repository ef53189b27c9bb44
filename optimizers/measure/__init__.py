"""Measurements of a model, its loss and its gradients, in a training run or beside it."""

from .gradient_moments import GradientMoments, gradient_moments, update_correlation
from .gradient_noise import gradient_noise
from .hessian_norms import hessian_frobenius, hessian_trace
from .hessian_spectrum import Spectrum, hessian_spectrum
from .hessian_subspace import (
    gradient_subspace_fraction,
    hessian_subspace,
    project_to_subspace,
    subspace_overlap,
)
from .measured import measured
from .sharpness import sharpness

__all__ = [
    "GradientMoments",
    "Spectrum",
    "gradient_moments",
    "gradient_noise",
    "gradient_subspace_fraction",
    "hessian_frobenius",
    "hessian_spectrum",
    "hessian_subspace",
    "hessian_trace",
    "measured",
    "project_to_subspace",
    "sharpness",
    "subspace_overlap",
    "update_correlation",
]
