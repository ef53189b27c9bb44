"""Curvature that couples all parameters."""

from .egn import egn, scale_by_egn
from .lazy_cubic_newton import lazy_cubic_newton, scale_by_lazy_cubic_newton
from .lazy_newton import lazy_newton, scale_by_lazy_newton
from .m_fac import m_fac, scale_by_m_fac
from .stochastic_newton_filter import scale_by_stochastic_newton_filter, stochastic_newton_filter
from .teng import TengState, TengStepper, teng, teng_step

__all__ = [
    "TengState",
    "TengStepper",
    "egn",
    "lazy_cubic_newton",
    "lazy_newton",
    "m_fac",
    "scale_by_egn",
    "scale_by_lazy_cubic_newton",
    "scale_by_lazy_newton",
    "scale_by_m_fac",
    "scale_by_stochastic_newton_filter",
    "stochastic_newton_filter",
    "teng",
    "teng_step",
]
