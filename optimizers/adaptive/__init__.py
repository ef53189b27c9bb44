"""Adaptive methods: a second moment, or something like it, sets the size of the step."""

from .adabelief import (
    adabelief,
    scale_by_adabelief,
)
from .adafactor import (
    adafactor,
    scale_by_adafactor,
)
from .adam import (
    adam,
    scale_by_adam,
)
from .adamp import (
    adamp,
    scale_by_adamp,
)
from .adamw import (
    adamw,
)
from .c_adamw import (
    c_adamw,
    scale_by_c_adamw,
)
from .grams import (
    grams,
    scale_by_grams,
)
from .laprop import (
    laprop,
    scale_by_laprop,
)
from .ranger21 import (
    ranger21,
    scale_by_ranger21,
)
from .spam import (
    scale_by_spam,
    spam,
)
from .stable_spam import (
    scale_by_stable_spam,
    stable_spam,
)

__all__ = [
    "adabelief",
    "adafactor",
    "adam",
    "adamp",
    "adamw",
    "c_adamw",
    "grams",
    "laprop",
    "ranger21",
    "scale_by_adabelief",
    "scale_by_adafactor",
    "scale_by_adam",
    "scale_by_adamp",
    "scale_by_c_adamw",
    "scale_by_grams",
    "scale_by_laprop",
    "scale_by_ranger21",
    "scale_by_spam",
    "scale_by_stable_spam",
    "spam",
    "stable_spam",
]
