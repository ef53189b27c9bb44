"""A diagonal of the Hessian or of Gauss-Newton."""

from .adahessian import adahessian, scale_by_adahessian
from .oasis import oasis, scale_by_oasis
from .sania import sania, scale_by_sania
from .sophia_g import scale_by_sophia_g, sophia_g
from .sophia_h import scale_by_sophia_h, sophia_h

__all__ = [
    "adahessian",
    "oasis",
    "sania",
    "scale_by_adahessian",
    "scale_by_oasis",
    "scale_by_sania",
    "scale_by_sophia_g",
    "scale_by_sophia_h",
    "sophia_g",
    "sophia_h",
]
