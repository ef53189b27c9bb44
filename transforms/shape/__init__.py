"""The shape of an update: norms, clipping, signs, radial parts, trust ratios."""

from .alignment import Granularity, cosine_similarity
from .channels import (
    adaptive_grad_clip,
    centralize_gradients,
    norm_loss,
    norm_loss_gradient,
    normalize_gradients,
    unit_norm,
)
from .norm_growth import limit_norm_growth
from .normalize import normalize
from .order_statistic import largest_magnitude
from .radial import project_out_params, project_out_radial
from .trust_ratio import scale_by_trust_ratio

__all__ = [
    "Granularity",
    "adaptive_grad_clip",
    "centralize_gradients",
    "cosine_similarity",
    "largest_magnitude",
    "limit_norm_growth",
    "norm_loss",
    "norm_loss_gradient",
    "normalize",
    "normalize_gradients",
    "project_out_params",
    "project_out_radial",
    "scale_by_trust_ratio",
    "unit_norm",
]
