"""Workers of which some may send anything: rules that make one gradient of many all the same."""

from .aggregation import aggregate, robust_aggregate
from .bulyan import bulyan
from .centered_clip import centered_clip
from .coordinatewise import coordinate_median, meamed, phocas, trimmed_mean
from .flag_aggregator import flag_aggregator
from .geometric_median import geometric_median
from .krum import krum, multi_krum
from .minimum_variance import minimum_variance
from .mo_nna import mo_nna
from .nearest_neighbor_mixing import nearest_neighbor_mixing

__all__ = [
    "aggregate",
    "bulyan",
    "centered_clip",
    "coordinate_median",
    "flag_aggregator",
    "geometric_median",
    "krum",
    "meamed",
    "minimum_variance",
    "mo_nna",
    "multi_krum",
    "nearest_neighbor_mixing",
    "phocas",
    "robust_aggregate",
    "trimmed_mean",
]
