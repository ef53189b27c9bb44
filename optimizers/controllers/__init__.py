"""Controllers outside of jit: they set a rate, a momentum or a batch size, and the loop obeys."""

from .adadagrad import AdaptiveBatchSize, BatchSize
from .auto_lrs import AutoLRS, RateDecision
from .batch_tests import (
    BatchTest,
    augmented_inner_product_test,
    coordinate_norm_test,
    inner_product_test,
    norm_test,
    orthogonality_test,
)
from .exponential_forecast import exponential_forecast
from .gp_lcb import gp_lcb
from .lanczos_lr_momentum import RateAndMomentum, lanczos_lr_momentum

__all__ = [
    "AdaptiveBatchSize",
    "AutoLRS",
    "BatchSize",
    "BatchTest",
    "RateAndMomentum",
    "RateDecision",
    "augmented_inner_product_test",
    "coordinate_norm_test",
    "exponential_forecast",
    "gp_lcb",
    "inner_product_test",
    "lanczos_lr_momentum",
    "norm_test",
    "orthogonality_test",
]
