"""Adaptive methods: a second moment, or something like it, sets the size of the step."""

from .adabelief import adabelief, scale_by_adabelief
from .adafactor import adafactor, scale_by_adafactor
from .adam import adam, scale_by_adam
from .adamw import adamw
from .c_adamw import c_adamw, scale_by_c_adamw
from .grams import grams, scale_by_grams
from .laprop import laprop, scale_by_laprop

__all__ = [
    "adabelief",
    "adafactor",
    "adam",
    "adamw",
    "c_adamw",
    "grams",
    "laprop",
    "scale_by_adabelief",
    "scale_by_adafactor",
    "scale_by_adam",
    "scale_by_c_adamw",
    "scale_by_grams",
    "scale_by_laprop",
]
