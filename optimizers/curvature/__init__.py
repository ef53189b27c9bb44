"""Second-order methods."""

from .k_fac import k_fac, scale_by_k_fac
from .singd import scale_by_singd, singd
from .sophia_h import scale_by_sophia_h, sophia_h

__all__ = [
    "k_fac",
    "scale_by_k_fac",
    "scale_by_singd",
    "scale_by_sophia_h",
    "singd",
    "sophia_h",
]
