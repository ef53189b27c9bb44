"""Second-order methods."""

from .adahessian import (
    adahessian,
    scale_by_adahessian,
)
from .egn import (
    egn,
    scale_by_egn,
)
from .k_fac import (
    k_fac,
    scale_by_k_fac,
)
from .lazy_cubic_newton import (
    lazy_cubic_newton,
    scale_by_lazy_cubic_newton,
)
from .lazy_newton import (
    lazy_newton,
    scale_by_lazy_newton,
)
from .m_fac import (
    m_fac,
    scale_by_m_fac,
)
from .mkor import (
    mkor,
    scale_by_mkor,
)
from .mkor_h import (
    mkor_h,
    scale_by_mkor_h,
)
from .mup_second_order import (
    mup_second_order,
    mup_second_order_scales,
    with_mup_scales,
)
from .oasis import (
    oasis,
    scale_by_oasis,
)
from .sania import (
    sania,
    scale_by_sania,
)
from .scaled_gd import (
    scale_by_factor_gram,
    scaled_gd,
)
from .singd import (
    scale_by_singd,
    singd,
)
from .sophia_g import (
    scale_by_sophia_g,
    sophia_g,
)
from .sophia_h import (
    scale_by_sophia_h,
    sophia_h,
)
from .stochastic_newton_filter import (
    scale_by_stochastic_newton_filter,
    stochastic_newton_filter,
)

__all__ = [
    "adahessian",
    "egn",
    "k_fac",
    "lazy_cubic_newton",
    "lazy_newton",
    "m_fac",
    "mkor",
    "mkor_h",
    "mup_second_order",
    "mup_second_order_scales",
    "oasis",
    "sania",
    "scale_by_adahessian",
    "scale_by_egn",
    "scale_by_factor_gram",
    "scale_by_k_fac",
    "scale_by_lazy_cubic_newton",
    "scale_by_lazy_newton",
    "scale_by_m_fac",
    "scale_by_mkor",
    "scale_by_mkor_h",
    "scale_by_oasis",
    "scale_by_sania",
    "scale_by_singd",
    "scale_by_sophia_g",
    "scale_by_sophia_h",
    "scale_by_stochastic_newton_filter",
    "scaled_gd",
    "singd",
    "sophia_g",
    "sophia_h",
    "stochastic_newton_filter",
    "with_mup_scales",
]
