"""Step-size rules: the learning rate comes from the loss or the path."""

from .cocob import cocob, scale_by_cocob
from .dadapt_adamw import dadapt_adamw
from .dadapt_sgd import dadapt_sgd
from .dog import dog, l_dog, scale_by_dog, scale_by_l_dog
from .dowg import dowg, scale_by_dowg
from .hypergradient_descent import adam_hd, hypergradient_descent, sgd_hd
from .mechanize import mechanize
from .momo import momo
from .momo_adam import momo_adam
from .polyak_momentum import polyak_momentum
from .prodigy import prodigy
from .u_dog import u_dog, unixgrad

__all__ = [
    "adam_hd",
    "cocob",
    "dadapt_adamw",
    "dadapt_sgd",
    "dog",
    "dowg",
    "hypergradient_descent",
    "l_dog",
    "mechanize",
    "momo",
    "momo_adam",
    "polyak_momentum",
    "prodigy",
    "scale_by_cocob",
    "scale_by_dog",
    "scale_by_dowg",
    "scale_by_l_dog",
    "sgd_hd",
    "u_dog",
    "unixgrad",
]
