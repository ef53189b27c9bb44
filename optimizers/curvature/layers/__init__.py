"""Curvature of single layers, from their inputs and cotangents."""

from .k_fac import k_fac, scale_by_k_fac
from .mkor import mkor, scale_by_mkor
from .mkor_h import mkor_h, scale_by_mkor_h
from .mup_second_order import mup_second_order, mup_second_order_scales, with_mup_scales
from .singd import scale_by_singd, singd

__all__ = [
    "k_fac",
    "mkor",
    "mkor_h",
    "mup_second_order",
    "mup_second_order_scales",
    "scale_by_k_fac",
    "scale_by_mkor",
    "scale_by_mkor_h",
    "scale_by_singd",
    "singd",
    "with_mup_scales",
]
