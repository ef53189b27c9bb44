"""Second-order information: Hessian products and diagonals, Gauss-Newton, dense Hessians."""

from .dense import Spectrum, dense_hessian, hessian_spectrum, shifted_solve, spectrum
from .gauss_newton import (
    OutputsLoss,
    bartlett_diagonal,
    gauss_newton_bartlett,
    gauss_newton_model_change,
    gauss_newton_solve,
)
from .hessian import hessian_vector_product, hutchinson
from .lanczos import krylov_basis, lanczos
from .pairs import given_or, hessian_along
from .safeguards import Floor, all_finite, finite_curvature, tapped_curvature, with_floor

__all__ = [
    "Floor",
    "OutputsLoss",
    "Spectrum",
    "all_finite",
    "bartlett_diagonal",
    "dense_hessian",
    "finite_curvature",
    "gauss_newton_bartlett",
    "gauss_newton_model_change",
    "gauss_newton_solve",
    "given_or",
    "hessian_along",
    "hessian_spectrum",
    "hessian_vector_product",
    "hutchinson",
    "krylov_basis",
    "lanczos",
    "shifted_solve",
    "spectrum",
    "tapped_curvature",
    "with_floor",
]
