"""Rules that any optimizer can wear, and the named optimizers that wear them."""

from .brake import brake
from .c_adamw import c_adamw, scale_by_c_adamw
from .c_lion import c_lion, scale_by_c_lion
from .cautious import cautious
from .cautious_weight_decay import cautious_weight_decay
from .grams import grams, scale_by_grams
from .perpgrad import perpgrad
from .random_scaling import random_scaling
from .sgdm_random_scaling import scale_by_shrinking_momentum, sgdm_random_scaling
from .sign_of_gradient import sign_of_gradient
from .stablemax import stablemax_cross_entropy
from .xgrad import weight_prediction, xgrad

__all__ = [
    "brake",
    "c_adamw",
    "c_lion",
    "cautious",
    "cautious_weight_decay",
    "grams",
    "perpgrad",
    "random_scaling",
    "scale_by_c_adamw",
    "scale_by_c_lion",
    "scale_by_grams",
    "scale_by_shrinking_momentum",
    "sgdm_random_scaling",
    "sign_of_gradient",
    "stablemax_cross_entropy",
    "weight_prediction",
    "xgrad",
]
