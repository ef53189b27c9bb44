"""Adaptive methods: a second moment, or something like it, sets the size of the step."""

from .adabelief import (
    adabelief,
    scale_by_adabelief,
)
from .adabound import (
    adabound,
    scale_by_adabound,
)
from .adafactor import (
    adafactor,
    scale_by_adafactor,
)
from .adam import (
    adam,
    scale_by_adam,
)
from .adam_critical_momenta import (
    adam_critical_momenta,
    scale_by_critical_momenta,
)
from .adamax import (
    adamax,
    scale_by_adamax,
)
from .adamp import (
    adamp,
    scale_by_adamp,
)
from .adamw import (
    adamw,
)
from .adan import (
    adan,
    scale_by_adan,
)
from .ademamix import (
    ademamix,
    scale_by_ademamix,
)
from .amsbound import (
    amsbound,
)
from .amsgrad import (
    amsgrad,
    scale_by_amsgrad,
)
from .c_adamw import (
    c_adamw,
    scale_by_c_adamw,
)
from .diffgrad import (
    diffgrad,
    scale_by_diffgrad,
)
from .fadam import (
    fadam,
    scale_by_fadam,
)
from .grams import (
    grams,
    scale_by_grams,
)
from .gravity import (
    gravity,
    scale_by_gravity,
)
from .innaprop import (
    innaprop,
    scale_by_innaprop,
)
from .lamb import (
    lamb,
)
from .laprop import (
    laprop,
    scale_by_laprop,
)
from .multi_adam import (
    multi_adam,
    scale_by_multi_adam,
)
from .mup_adam import (
    mup_adam,
    scale_by_mup_adam,
)
from .novograd import (
    novograd,
    scale_by_novograd,
)
from .optimistic_amsgrad import (
    optimistic_amsgrad,
    scale_by_optimistic_amsgrad,
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
from .upgd import (
    scale_by_upgd,
    upgd,
)

__all__ = [
    "adabelief",
    "adabound",
    "adafactor",
    "adam",
    "adam_critical_momenta",
    "adamax",
    "adamp",
    "adamw",
    "adan",
    "ademamix",
    "amsbound",
    "amsgrad",
    "c_adamw",
    "diffgrad",
    "fadam",
    "grams",
    "gravity",
    "innaprop",
    "lamb",
    "laprop",
    "multi_adam",
    "mup_adam",
    "novograd",
    "optimistic_amsgrad",
    "ranger21",
    "scale_by_adabelief",
    "scale_by_adabound",
    "scale_by_adafactor",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adamp",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_amsgrad",
    "scale_by_c_adamw",
    "scale_by_critical_momenta",
    "scale_by_diffgrad",
    "scale_by_fadam",
    "scale_by_grams",
    "scale_by_gravity",
    "scale_by_innaprop",
    "scale_by_laprop",
    "scale_by_multi_adam",
    "scale_by_mup_adam",
    "scale_by_novograd",
    "scale_by_optimistic_amsgrad",
    "scale_by_ranger21",
    "scale_by_spam",
    "scale_by_stable_spam",
    "scale_by_upgd",
    "spam",
    "stable_spam",
    "upgd",
]
