"""Memory over time: averages, momenta, windows and what corrects them."""

from .complex_trace import complex_buffer, complex_trace, linked_trace, polar
from .difference import difference
from .ema import debias, ema, interpolated_momentum, one_minus_power, trace
from .extrapolation import extrapolate
from .factored import bounded_square, mean_along_largest, scale_by_factored_rms
from .freeze import freeze_first
from .initial import initial_params
from .inner_momentum import pull_back_momentum
from .last_values import last_values
from .maxima import decayed_max
from .moments import MomentumForm, debiased_root, divide, momentum, running_max, running_rms
from .pnm import positive_negative_momentum
from .read_momentum import with_momentum
from .rectification import Rectification, radam_rectification
from .slow_weights import back_to_slow_weights
from .staleness import delay_gradients
from .subsets import SubsetSize, subset_moment
from .sums import running_norm, running_sum
from .window import ring_slot, window, write_slot

__all__ = [
    "MomentumForm",
    "Rectification",
    "SubsetSize",
    "back_to_slow_weights",
    "bounded_square",
    "complex_buffer",
    "complex_trace",
    "debias",
    "debiased_root",
    "decayed_max",
    "delay_gradients",
    "difference",
    "divide",
    "ema",
    "extrapolate",
    "freeze_first",
    "initial_params",
    "interpolated_momentum",
    "last_values",
    "linked_trace",
    "mean_along_largest",
    "momentum",
    "one_minus_power",
    "polar",
    "positive_negative_momentum",
    "pull_back_momentum",
    "radam_rectification",
    "ring_slot",
    "running_max",
    "running_norm",
    "running_rms",
    "running_sum",
    "scale_by_factored_rms",
    "subset_moment",
    "trace",
    "window",
    "with_momentum",
    "write_slot",
]
