"""Second-order methods."""

from .k_fac import (
    k_fac,
    scale_by_k_fac,
)
from .sophia_h import (
    scale_by_sophia_h,
    sophia_h,
)

__all__ = [
    "k_fac",
    "scale_by_k_fac",
    "scale_by_sophia_h",
    "sophia_h",
]
