"""Methods without backward passes: zeroth-order estimates and forward gradients."""

from .forward_gradient import forward_gradient
from .forward_gradient_local import forward_gradient_local
from .mezo import mezo, zo_sgd
from .zeroflow import zeroflow
from .zo2 import ZO2, ZO2State, zo2
from .zo_adam import zo_adam
from .zo_adamu import adamu_anneal, scale_by_zo_adamu, zo_adamu
from .zo_block_coordinate import zo_block_coordinate
from .zo_hybrid import zo_hybrid
from .zo_sgd_conservative import zo_sgd_conservative
from .zo_sgd_momentum import zo_sgd_momentum
from .zo_sign_sgd import zo_sign_sgd
from .zo_sparse import zo_sparse

__all__ = [
    "ZO2",
    "ZO2State",
    "adamu_anneal",
    "forward_gradient",
    "forward_gradient_local",
    "mezo",
    "scale_by_zo_adamu",
    "zeroflow",
    "zo2",
    "zo_adam",
    "zo_adamu",
    "zo_block_coordinate",
    "zo_hybrid",
    "zo_sgd",
    "zo_sgd_conservative",
    "zo_sgd_momentum",
    "zo_sign_sgd",
    "zo_sparse",
]
