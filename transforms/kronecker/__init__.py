"""Matrices of a layer or leaf: factors, their roots, groups, stacks of equal shapes."""

from .cross_group import Cross
from .factor_pairs import Pairs, partner_leaves, solve_gram
from .factors import (
    all_finite_or,
    blend_identity,
    damped,
    eigenbasis,
    eigenvectors,
    factor_average,
    finite_or,
    finite_or_plain,
    identity_like,
    mean_loss_moment,
    positive_inverse,
    rank_one_inverse,
    sandwich,
    second_moment,
)
from .fitting import failed_updates, fit_preconditioner, preconditioned
from .grouped import lift_in_turn, per_matrix, solve_grouped
from .kronecker_group import Kronecker, norm_lower_bound
from .layer_places import Layer, Layers
from .layers import (
    across_devices,
    join_layers,
    layer_matrices,
    layer_means,
    layer_norms,
    layer_rows,
)
from .lie_groups import LieGroup
from .low_rank_group import LowRank
from .matrix_roots import (
    ROOT_SOLVERS,
    eigh_root,
    newton_root,
    newton_schulz_root,
    qr_root,
    shifted_eigh_root,
)
from .newton_schulz import newton_schulz
from .orthogonalize import polar_factor
from .per_layer import per_layer, spread
from .spreading import spread_batch
from .stacking import Blocks, merge_dims, stack_same_shapes, unstack
from .structured import structure_named
from .tensor_statistics import (
    Roots,
    bounded_or_zero,
    failed_roots,
    finite_or_zero,
    graft,
    inverse_roots,
    kronecker_statistics,
    mode_product,
    mode_products,
    precondition,
)

__all__ = [
    "ROOT_SOLVERS",
    "Blocks",
    "Cross",
    "Kronecker",
    "Layer",
    "Layers",
    "LieGroup",
    "LowRank",
    "Pairs",
    "Roots",
    "across_devices",
    "all_finite_or",
    "blend_identity",
    "bounded_or_zero",
    "damped",
    "eigenbasis",
    "eigenvectors",
    "eigh_root",
    "factor_average",
    "failed_roots",
    "failed_updates",
    "finite_or",
    "finite_or_plain",
    "finite_or_zero",
    "fit_preconditioner",
    "graft",
    "identity_like",
    "inverse_roots",
    "join_layers",
    "kronecker_statistics",
    "layer_matrices",
    "layer_means",
    "layer_norms",
    "layer_rows",
    "lift_in_turn",
    "mean_loss_moment",
    "merge_dims",
    "mode_product",
    "mode_products",
    "newton_root",
    "newton_schulz",
    "newton_schulz_root",
    "norm_lower_bound",
    "partner_leaves",
    "per_layer",
    "per_matrix",
    "polar_factor",
    "positive_inverse",
    "precondition",
    "preconditioned",
    "qr_root",
    "rank_one_inverse",
    "sandwich",
    "second_moment",
    "shifted_eigh_root",
    "solve_gram",
    "solve_grouped",
    "spread",
    "spread_batch",
    "stack_same_shapes",
    "structure_named",
    "unstack",
]
