"""The primitives, and the flow notation that joins them."""

from .alignment import (
    cosine_similarity,
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
from .curvature import (
    hessian_vector_product,
    hutchinson,
)
from .ema import (
    debias,
    ema,
    one_minus_power,
    trace,
)
from .factored import (
    scale_by_factored_rms,
)
from .inject import (
    inject_hyperparams,
)
from .kronecker import (
    damped_inverse,
    eigenbasis,
    factor_average,
    finite_or,
    finite_or_plain,
    identity_like,
    mean_loss_moment,
    sandwich,
    second_moment,
)
from .layers import (
    Layer,
    Layers,
    join_layers,
    layer_matrices,
    layer_means,
    layer_rows,
    per_layer,
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
from .moments import (
    MOMENTUM_FORMS,
    debiased_root,
    divide,
    momentum,
    running_max,
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
from .notation.describe import describe
from .notation.draw import draw
from .notation.errors import FlowError
from .notation.evaluation import eval_params
from .notation.foreign import Kernel
from .notation.describe import (
    describe,
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
from .order_statistic import (
    largest_magnitude,
)
from .pnm import (
    positive_negative_momentum,
)
from .prediction import (
    send_at,
)
from .radial import (
    project_out_params,
    project_out_radial,
)
from .random import (
    draw_leaves,
    draw_like,
    draw_scalar,
    exponential,
    random_key,
)
from .rectification import (
    Rectification,
    radam_rectification,
)
from .scaling import (
    add_decayed_weights,
    decay_weights,
    scale_by_learning_rate,
    starting_at,
)
from .spikes import (
    clip_spikes,
    clip_to_second_moment,
    clip_to_tracked_maximum,
    normalize_to_tracked_norm,
)
from .stable_decay import (
    stable_weight_decay,
    typical_gradient,
)
from .staleness import (
    delay_gradients,
)

__all__ = [
    "MOMENTUM_FORMS",
    "Basis",
    "Coordinates",
    "Flow",
    "FlowError",
    "Interval",
    "Kernel",
    "Layer",
    "Layers",
    "Rectification",
    "Signal",
    "Switch",
    "absolute",
    "active_leaves",
    "adaptive_grad_clip",
    "add_decayed_weights",
    "any_number",
    "centralize_gradients",
    "chain",
    "check_choice",
    "clip",
    "clip_spikes",
    "clip_to_second_moment",
    "clip_to_tracked_maximum",
    "cosine_similarity",
    "count_from_0",
    "count_from_1",
    "damped_inverse",
    "debias",
    "debiased_root",
    "decay_rate",
    "decay_weights",
    "delay",
    "delay_gradients",
    "describe",
    "divide",
    "divide_or_zero",
    "draw",
    "draw_leaves",
    "draw_like",
    "draw_scalar",
    "eigenbasis",
    "ema",
    "eval_params",
    "every",
    "exp",
    "exponential",
    "factor_average",
    "finite_or",
    "finite_or_plain",
    "flow",
    "fraction",
    "global_dot",
    "global_max",
    "global_mean",
    "global_norm",
    "global_size",
    "global_squared_norm",
    "global_sum",
    "hessian_vector_product",
    "hutchinson",
    "identity_like",
    "inject_hyperparams",
    "isfinite",
    "join_layers",
    "largest_magnitude",
    "layer_matrices",
    "layer_means",
    "layer_rows",
    "leaf_dot",
    "leaf_max",
    "leaf_mean",
    "leaf_norm",
    "leaf_rms",
    "leaf_size",
    "leaf_sum",
    "leaf_where",
    "lift",
    "lift_tree",
    "log",
    "low_rank",
    "matmul",
    "matrices",
    "maximum",
    "mean_loss_moment",
    "merge",
    "minimum",
    "momentum",
    "named",
    "needs",
    "nonnegative",
    "norm_loss",
    "norm_loss_gradient",
    "normalize_gradients",
    "normalize_to_tracked_norm",
    "observe",
    "observed",
    "one_minus_power",
    "ones_like",
    "per_layer",
    "positive",
    "positive_negative_momentum",
    "project",
    "project_out_params",
    "project_out_radial",
    "radam_rectification",
    "random_basis",
    "random_coordinates",
    "random_key",
    "reduce_leaves",
    "reset_every",
    "reset_when",
    "residual",
    "running_max",
    "sandwich",
    "scale_by_factored_rms",
    "scale_by_learning_rate",
    "scheduled",
    "second_moment",
    "send_at",
    "sigmoid",
    "sign",
    "signs_agree",
    "softplus",
    "split",
    "sqrt",
    "square",
    "stable_weight_decay",
    "starting_at",
    "stateful",
    "step_count",
    "svd_basis",
    "tanh",
    "tap",
    "trace",
    "transformation",
    "transpose",
    "typical_gradient",
    "unit_norm",
    "unproject",
    "when",
    "where",
    "zeros_like",
]
