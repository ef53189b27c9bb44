"""Second-order information: Hessian products and diagonals, Gauss-Newton, dense Hessians."""

from .block_average import block_average
from .cubic import cubic_subproblem
from .dense import Spectrum, dense_hessian, hessian_spectrum, shifted_solve, spectrum
from .dual import gram_like, gram_update, lone_solve, window_solve
from .gauss_newton import (
    bartlett_diagonal,
    gauss_newton_bartlett,
    gauss_newton_model_change,
    gauss_newton_solve,
)
from .hessian import gradient, hessian_vector_product, hutchinson
from .kalman import Gaussian, choose, discriminative_update, gaussian, kalman_predict, whitened_mean
from .pairs import given_or, hessian_along
from .safeguards import all_finite, finite_curvature, tapped_curvature, with_floor

__all__ = [
    "Gaussian",
    "Spectrum",
    "all_finite",
    "bartlett_diagonal",
    "block_average",
    "choose",
    "cubic_subproblem",
    "dense_hessian",
    "discriminative_update",
    "finite_curvature",
    "gauss_newton_bartlett",
    "gauss_newton_model_change",
    "gauss_newton_solve",
    "gaussian",
    "given_or",
    "gradient",
    "gram_like",
    "gram_update",
    "hessian_along",
    "hessian_spectrum",
    "hessian_vector_product",
    "hutchinson",
    "kalman_predict",
    "lone_solve",
    "shifted_solve",
    "spectrum",
    "tapped_curvature",
    "whitened_mean",
    "window_solve",
    "with_floor",
]
