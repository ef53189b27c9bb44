"""Kronecker-factored and other structured preconditioners, from gradients alone."""

from .distributed_shampoo import distributed_shampoo, scale_by_distributed_shampoo
from .muon import muon, scale_by_muon, scale_by_shape
from .psgd.psgd_kron import psgd_kron, scale_by_psgd_kron
from .psgd.psgd_lra import psgd_lra, scale_by_psgd_lra
from .psgd.psgd_xmat import psgd_xmat, scale_by_psgd_xmat
from .scaled_gd import scale_by_factor_gram, scaled_gd
from .shampoo import scale_by_shampoo, shampoo
from .soap import scale_by_soap, soap

__all__ = [
    "distributed_shampoo",
    "muon",
    "psgd_kron",
    "psgd_lra",
    "psgd_xmat",
    "scale_by_distributed_shampoo",
    "scale_by_factor_gram",
    "scale_by_muon",
    "scale_by_psgd_kron",
    "scale_by_psgd_lra",
    "scale_by_psgd_xmat",
    "scale_by_shampoo",
    "scale_by_shape",
    "scale_by_soap",
    "scaled_gd",
    "shampoo",
    "soap",
]
