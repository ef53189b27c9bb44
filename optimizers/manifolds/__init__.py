"""Manifolds: params that live on spheres, in hyperbolic space or among orthonormal frames."""

from .riemannian_adagrad import riemannian_adagrad
from .riemannian_adam import riemannian_adam
from .riemannian_amsgrad import riemannian_amsgrad
from .rsgd import rsgd

__all__ = [
    "riemannian_adagrad",
    "riemannian_adam",
    "riemannian_amsgrad",
    "rsgd",
]
