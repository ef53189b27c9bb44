"""Methods that keep less than a state of two copies of the params."""

from .adafactor import adafactor, scale_by_adafactor
from .frugal import frugal, scale_by_frugal
from .galore import galore, scale_by_galore
from .sm3 import scale_by_sm3, sm3

__all__ = [
    "adafactor",
    "frugal",
    "galore",
    "scale_by_adafactor",
    "scale_by_frugal",
    "scale_by_galore",
    "scale_by_sm3",
    "sm3",
]
