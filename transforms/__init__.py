"""The primitives, and the flow notation that joins them."""

from .adgd import (
    adgd_step_size,
)
from .alignment import (
    cosine_similarity,
)
from .block_average import (
    block_average,
)
from .branch import (
    either,
    on_leaves,
)
from .channels import (
    adaptive_grad_clip,
    centralize_gradients,
    norm_loss,
    norm_loss_gradient,
    normalize_gradients,
    unit_norm,
)
from .control import (
    every,
    reset_every,
    reset_when,
    when,
)
from .cubic import (
    cubic_subproblem,
)
from .curvature import (
    gradient,
    hessian_vector_product,
    hutchinson,
)
from .curvature_pairs import (
    given_or,
    hessian_along,
)
from .dense import (
    Spectrum,
    dense_hessian,
    hessian_spectrum,
    shifted_solve,
    spectrum,
)
from .difference import (
    difference,
)
from .dual import (
    gram_like,
    gram_update,
    window_solve,
)
from .ema import (
    debias,
    ema,
    interpolated_momentum,
    one_minus_power,
    trace,
)
from .extrapolation import (
    extrapolate,
)
from .factor_pairs import (
    Pairs,
    partner_leaves,
    solve_gram,
)
from .factored import (
    scale_by_factored_rms,
)
from .freeze import (
    freeze_first,
)
from .gauss_newton import (
    bartlett_diagonal,
    gauss_newton_bartlett,
    gauss_newton_model_change,
    gauss_newton_solve,
)
from .inject import (
    inject_hyperparams,
)
from .inner_momentum import (
    pull_back_momentum,
)
from .kalman import (
    Gaussian,
    choose,
    discriminative_update,
    gaussian,
    kalman_predict,
    whitened_mean,
)
from .kronecker import (
    blend_identity,
    damped_inverse,
    eigenbasis,
    factor_average,
    finite_or,
    finite_or_plain,
    identity_like,
    mean_loss_moment,
    rank_one_inverse,
    sandwich,
    second_moment,
)
from .last_values import (
    last_values,
)
from .layers import (
    Layer,
    Layers,
    across_devices,
    join_layers,
    layer_matrices,
    layer_means,
    layer_norms,
    layer_rows,
    per_layer,
    spread,
)
from .leaf_multipliers import (
    leaf_multipliers,
)
from .lie_groups import (
    Cross,
    Kronecker,
    LieGroup,
    LowRank,
    failed_updates,
    fit_preconditioner,
    norm_lower_bound,
    preconditioned,
)
from .line_search import (
    backtracking,
    loss_change,
)
from .low_rank import (
    Basis,
    Coordinates,
    Switch,
    active_leaves,
    low_rank,
    project,
    random_basis,
    random_coordinates,
    residual,
    svd_basis,
    unproject,
)
from .masked import (
    masked,
)
from .matrix_roots import (
    ROOT_SOLVERS,
    eigh_root,
    newton_root,
    newton_schulz_root,
    qr_root,
    shifted_eigh_root,
)
from .maxima import (
    decayed_max,
)
from .model_step import (
    model_step_size,
)
from .moments import (
    MOMENTUM_FORMS,
    debiased_root,
    divide,
    momentum,
    running_max,
)
from .newton_schulz import (
    newton_schulz,
)
from .normalize import (
    normalize,
)
from .notation.build import (
    Flow,
    chain,
    delay,
    flow,
    named,
    scheduled,
    stateful,
    step_count,
    tap,
)
from .notation.checks import (
    Interval,
    any_number,
    check_choice,
    count_from_0,
    count_from_1,
    decay_rate,
    fraction,
    nonnegative,
    positive,
    transformation,
)
from .notation.describe import (
    describe,
)
from .notation.draw import (
    draw,
)
from .notation.errors import (
    FlowError,
)
from .notation.evaluation import (
    eval_params,
)
from .notation.foreign import (
    Kernel,
)
from .notation.functions import (
    absolute,
    clip,
    divide_or_zero,
    exp,
    global_dot,
    global_max,
    global_mean,
    global_norm,
    global_size,
    global_squared_norm,
    global_sum,
    isfinite,
    leaf_dot,
    leaf_max,
    leaf_mean,
    leaf_norm,
    leaf_rms,
    leaf_size,
    leaf_sum,
    leaf_where,
    lift,
    lift_tree,
    log,
    matmul,
    matrices,
    maximum,
    merge,
    minimum,
    ones_like,
    reduce_leaves,
    safe_sqrt,
    sigmoid,
    sign,
    signs_agree,
    softplus,
    split,
    sqrt,
    square,
    tanh,
    transpose,
    where,
    zeros_like,
)
from .notation.needs import (
    needs,
)
from .notation.observe import (
    observe,
    observed,
)
from .notation.signal import (
    Signal,
)
from .objectives import (
    combine,
    stacked_gradients,
)
from .order_statistic import (
    largest_magnitude,
)
from .orthogonalize import (
    polar_factor,
)
from .per_leaf import (
    per_leaf,
)
from .pnm import (
    positive_negative_momentum,
)
from .polyak import (
    quadratic_polyak_step,
    with_polyak_step,
)
from .prediction import (
    send_at,
)
from .priority_buffer import (
    mean_of_buffer,
)
from .radial import (
    project_out_params,
    project_out_radial,
)
from .random import (
    draw_leaves,
    draw_like,
    draw_scalar,
    drawn_start,
    exponential,
    random_key,
)
from .rectification import (
    Rectification,
    radam_rectification,
)
from .safeguards import (
    all_finite,
    finite_curvature,
    with_floor,
)
from .scaling import (
    add_decayed_weights,
    decay_weights,
    relative_rate,
    scale_by_learning_rate,
    starting_at,
)
from .spikes import (
    clip_spikes,
    clip_to_second_moment,
    clip_to_tracked_maximum,
    normalize_to_tracked_norm,
)
from .spreading import (
    spread_batch,
)
from .stable_decay import (
    stable_weight_decay,
    typical_gradient,
)
from .stacking import (
    Blocks,
    merge_dims,
    stack_same_shapes,
    unstack,
)
from .staleness import (
    delay_gradients,
)
from .structured import (
    structure_named,
)
from .subgradients import (
    SUBGRADIENTS,
    subgradient,
)
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
from .trust_ratio import (
    scale_by_trust_ratio,
)
from .variance_reduction import (
    mars_correction,
)
from .vector import (
    flatten_tree,
    unflatten_tree,
)
from .width import (
    mup_init_scale,
    mup_readout_multiplier,
    mup_width_multipliers,
)
from .window import (
    ring_slot,
    window,
    write_slot,
)

__all__ = [
    "MOMENTUM_FORMS",
    "ROOT_SOLVERS",
    "SUBGRADIENTS",
    "Basis",
    "Blocks",
    "Coordinates",
    "Cross",
    "Flow",
    "FlowError",
    "Gaussian",
    "Interval",
    "Kernel",
    "Kronecker",
    "Layer",
    "Layers",
    "LieGroup",
    "LowRank",
    "Pairs",
    "Rectification",
    "Roots",
    "Signal",
    "Spectrum",
    "Switch",
    "absolute",
    "across_devices",
    "active_leaves",
    "adaptive_grad_clip",
    "add_decayed_weights",
    "adgd_step_size",
    "all_finite",
    "any_number",
    "backtracking",
    "bartlett_diagonal",
    "blend_identity",
    "block_average",
    "bounded_or_zero",
    "centralize_gradients",
    "chain",
    "check_choice",
    "choose",
    "clip",
    "clip_spikes",
    "clip_to_second_moment",
    "clip_to_tracked_maximum",
    "combine",
    "cosine_similarity",
    "count_from_0",
    "count_from_1",
    "cubic_subproblem",
    "damped_inverse",
    "debias",
    "debiased_root",
    "decay_rate",
    "decay_weights",
    "decayed_max",
    "delay",
    "delay_gradients",
    "dense_hessian",
    "describe",
    "difference",
    "discriminative_update",
    "divide",
    "divide_or_zero",
    "draw",
    "draw_leaves",
    "draw_like",
    "draw_scalar",
    "drawn_start",
    "eigenbasis",
    "eigh_root",
    "either",
    "ema",
    "eval_params",
    "every",
    "exp",
    "exponential",
    "extrapolate",
    "factor_average",
    "failed_roots",
    "failed_updates",
    "finite_curvature",
    "finite_or",
    "finite_or_plain",
    "finite_or_zero",
    "fit_preconditioner",
    "flatten_tree",
    "flow",
    "fraction",
    "freeze_first",
    "gauss_newton_bartlett",
    "gauss_newton_model_change",
    "gauss_newton_solve",
    "gaussian",
    "given_or",
    "global_dot",
    "global_max",
    "global_mean",
    "global_norm",
    "global_size",
    "global_squared_norm",
    "global_sum",
    "gradient",
    "graft",
    "gram_like",
    "gram_update",
    "hessian_along",
    "hessian_spectrum",
    "hessian_vector_product",
    "hutchinson",
    "identity_like",
    "inject_hyperparams",
    "interpolated_momentum",
    "inverse_roots",
    "isfinite",
    "join_layers",
    "kalman_predict",
    "kronecker_statistics",
    "largest_magnitude",
    "last_values",
    "layer_matrices",
    "layer_means",
    "layer_norms",
    "layer_rows",
    "leaf_dot",
    "leaf_max",
    "leaf_mean",
    "leaf_multipliers",
    "leaf_norm",
    "leaf_rms",
    "leaf_size",
    "leaf_sum",
    "leaf_where",
    "lift",
    "lift_tree",
    "log",
    "loss_change",
    "low_rank",
    "mars_correction",
    "masked",
    "matmul",
    "matrices",
    "maximum",
    "mean_loss_moment",
    "mean_of_buffer",
    "merge",
    "merge_dims",
    "minimum",
    "mode_product",
    "mode_products",
    "model_step_size",
    "momentum",
    "mup_init_scale",
    "mup_readout_multiplier",
    "mup_width_multipliers",
    "named",
    "needs",
    "newton_root",
    "newton_schulz",
    "newton_schulz_root",
    "nonnegative",
    "norm_loss",
    "norm_loss_gradient",
    "norm_lower_bound",
    "normalize",
    "normalize_gradients",
    "normalize_to_tracked_norm",
    "observe",
    "observed",
    "on_leaves",
    "one_minus_power",
    "ones_like",
    "partner_leaves",
    "per_layer",
    "per_leaf",
    "polar_factor",
    "positive",
    "positive_negative_momentum",
    "precondition",
    "preconditioned",
    "project",
    "project_out_params",
    "project_out_radial",
    "pull_back_momentum",
    "qr_root",
    "quadratic_polyak_step",
    "radam_rectification",
    "random_basis",
    "random_coordinates",
    "random_key",
    "rank_one_inverse",
    "reduce_leaves",
    "relative_rate",
    "reset_every",
    "reset_when",
    "residual",
    "ring_slot",
    "running_max",
    "safe_sqrt",
    "sandwich",
    "scale_by_factored_rms",
    "scale_by_learning_rate",
    "scale_by_trust_ratio",
    "scheduled",
    "second_moment",
    "send_at",
    "shifted_eigh_root",
    "shifted_solve",
    "sigmoid",
    "sign",
    "signs_agree",
    "softplus",
    "solve_gram",
    "spectrum",
    "split",
    "spread",
    "spread_batch",
    "sqrt",
    "square",
    "stable_weight_decay",
    "stack_same_shapes",
    "stacked_gradients",
    "starting_at",
    "stateful",
    "step_count",
    "structure_named",
    "subgradient",
    "svd_basis",
    "tanh",
    "tap",
    "trace",
    "transformation",
    "transpose",
    "typical_gradient",
    "unflatten_tree",
    "unit_norm",
    "unproject",
    "unstack",
    "when",
    "where",
    "whitened_mean",
    "window",
    "window_solve",
    "with_floor",
    "with_polyak_step",
    "write_slot",
    "zeros_like",
]
