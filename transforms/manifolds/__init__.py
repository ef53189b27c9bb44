"""Manifolds: sets without corners, on which params live and steps are tangent.

    sphere()             every vector along the last axis has length 1
    poincare_ball(c)     every vector along the last axis is a point of hyperbolic space
    stiefel()            every matrix of the last two axes has orthonormal columns
    euclidean()          ordinary params

A product of manifolds is a tree with one for each leaf. The objects have no state and are equal
when their arguments are; `Manifold` says what another one must do.
"""

from .assigned import Manifolds, OnManifolds, manifolds_by_path
from .manifold import Euclidean, Manifold
from .poincare import PoincareBall
from .riemannian import riemannian
from .sphere import Sphere
from .stiefel import Stiefel

euclidean, sphere, poincare_ball, stiefel = Euclidean, Sphere, PoincareBall, Stiefel

__all__ = [
    "Euclidean",
    "Manifold",
    "Manifolds",
    "OnManifolds",
    "PoincareBall",
    "Sphere",
    "Stiefel",
    "euclidean",
    "manifolds_by_path",
    "poincare_ball",
    "riemannian",
    "sphere",
    "stiefel",
]
