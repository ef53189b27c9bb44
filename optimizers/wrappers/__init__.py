"""Wrappers: methods that work around any other transformation."""

from .brake import (
    brake,
)
from .cautious import (
    cautious,
)
from .lookahead import (
    lookahead,
)
from .random_scaling import (
    random_scaling,
)
from .sign_of_gradient import (
    sign_of_gradient,
)
from .ttur import (
    ttur,
)
from .xgrad import (
    weight_prediction,
    xgrad,
)

__all__ = [
    "brake",
    "cautious",
    "lookahead",
    "random_scaling",
    "sign_of_gradient",
    "ttur",
    "weight_prediction",
    "xgrad",
]
