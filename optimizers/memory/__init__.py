"""Methods that keep less than a state of two copies of the params."""

from .adafactor import adafactor, scale_by_adafactor
from .frugal import frugal, scale_by_frugal
from .galore import galore, scale_by_galore

__all__ = [
    "adafactor",
    "frugal",
    "galore",
    "scale_by_adafactor",
    "scale_by_frugal",
    "scale_by_galore",
]
