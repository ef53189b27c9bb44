"""Games: two or more players descend on losses of their own."""

from .complex_adam import complex_adam, scale_by_complex_adam
from .complex_momentum import complex_momentum
from .extragradient import extragradient
from .optimistic_amsgrad import optimistic_amsgrad, scale_by_optimistic_amsgrad
from .optimistic_gradient import optimistic_gradient, scale_by_optimistic_gradient
from .optimistic_mirror_descent import optimistic_mirror_descent
from .past_extragradient import past_extragradient
from .projected_optimistic_gradient import projected_optimistic_gradient
from .reflected_gradient import reflected_gradient
from .ttur import ttur

__all__ = [
    "complex_adam",
    "complex_momentum",
    "extragradient",
    "optimistic_amsgrad",
    "optimistic_gradient",
    "optimistic_mirror_descent",
    "past_extragradient",
    "projected_optimistic_gradient",
    "reflected_gradient",
    "scale_by_complex_adam",
    "scale_by_optimistic_amsgrad",
    "scale_by_optimistic_gradient",
    "ttur",
]
