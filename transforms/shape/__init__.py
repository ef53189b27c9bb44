"""The shape of an update: norms, clipping, signs, radial parts, trust ratios."""

from .alignment import cosine_similarity
from .channels import (
    adaptive_grad_clip,
    centralize_gradients,
    norm_loss,
    norm_loss_gradient,
    normalize_gradients,
    unit_norm,
)
from .normalize import normalize
from .order_statistic import largest_magnitude
from .radial import project_out_params, project_out_radial
from .spikes import (
    clip_spikes,
    clip_to_second_moment,
    clip_to_tracked_maximum,
    normalize_to_tracked_norm,
)
from .subgradients import SUBGRADIENTS, subgradient
from .trust_ratio import scale_by_trust_ratio

__all__ = [
    "SUBGRADIENTS",
    "adaptive_grad_clip",
    "centralize_gradients",
    "clip_spikes",
    "clip_to_second_moment",
    "clip_to_tracked_maximum",
    "cosine_similarity",
    "largest_magnitude",
    "norm_loss",
    "norm_loss_gradient",
    "normalize",
    "normalize_gradients",
    "normalize_to_tracked_norm",
    "project_out_params",
    "project_out_radial",
    "scale_by_trust_ratio",
    "subgradient",
    "unit_norm",
]
