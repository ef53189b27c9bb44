"""Second-order methods."""

from .k_fac import k_fac, scale_by_k_fac
from .mkor import mkor, scale_by_mkor
from .mkor_h import mkor_h, scale_by_mkor_h
from .mup_second_order import mup_second_order_scales, with_mup_scales
from .scaled_gd import scale_by_factor_gram, scaled_gd
from .singd import scale_by_singd, singd
from .sophia_h import scale_by_sophia_h, sophia_h

__all__ = [
    "k_fac",
    "mkor",
    "mkor_h",
    "mup_second_order_scales",
    "scale_by_factor_gram",
    "scale_by_k_fac",
    "scale_by_mkor",
    "scale_by_mkor_h",
    "scale_by_singd",
    "scale_by_sophia_h",
    "scaled_gd",
    "singd",
    "sophia_h",
    "with_mup_scales",
]
