"""PSGD: a preconditioner fitted within a Lie group, in three groups."""

from .psgd_kron import psgd_kron, scale_by_psgd_kron
from .psgd_lra import psgd_lra, scale_by_psgd_lra
from .psgd_xmat import psgd_xmat, scale_by_psgd_xmat

__all__ = [
    "psgd_kron",
    "psgd_lra",
    "psgd_xmat",
    "scale_by_psgd_kron",
    "scale_by_psgd_lra",
    "scale_by_psgd_xmat",
]
