"""Adam in the maximal update parametrisation."""

from typing import Any

import jax
import optax

from ...registry import method
from ...transforms import (
    Axis,
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Signal,
    chain,
    decay_weights,
    flow,
    handed_on,
    is_neutral,
    scale_by_adam,
    scale_by_learning_rate,
    transformation,
)
from ...transforms.step_size import leaf_multipliers
from ...transforms.step_size.width import BaseShapes, Width, widths


@transformation()
def scale_by_mup_adam(
    base_shapes: BaseShapes,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    decoupled: bool = False,
    scale_weight_decay: bool = True,
    scale_eps: bool = False,
    fan_in_axis: Axis = -1,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam whose hidden matrices learn more slowly the wider they are.

    With k the width multiplier of a leaf whose two dimensions both grow with the width, 1 for every
    other leaf (inputs, readouts, biases, see `mup_width_multipliers`):

        u_t = (1/k) adam(g_t + k weight_decay x_{t-1})
        u_t = (1/k) (adam(g_t) + k weight_decay x_{t-1})         if decoupled

    The model has its part to play: hidden weights start with the standard deviation
    fan_in^(-1/2), readouts with one that does not depend on the width, and what they give is
    multiplied by `mup_readout_multiplier`; attention logits are divided by the head's dimension.

    Args:
      base_shapes: tree of the leaf shapes of the base (narrow) model, or a function from the
        params to it. A dimension has grown where it differs.
      b1, b2, eps: see `scale_by_adam`.
      weight_decay: L2, added to the gradient, or decoupled.
      decoupled: decay apart from Adam.
      scale_weight_decay: the factor k of the decay, by which rate times decay does not depend on
        the width.
      scale_eps: divide eps by the width multiplier where gradients shrink with the width, in hidden
        matrices and inputs: the exact limit of the paper, left out in the authors' package.
      fan_in_axis: which of the two grown dimensions is the fan-in: -1, the last, in the layout
        (out, in); -2 in that of Flax kernels, (in, out).
      mask: leaves that decay; default all.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Yang & Littwin 2023, Tensor Programs IVb: Adaptive Optimization in the Infinite-Width Limit
      (arXiv 2308.01814), and microsoft/mup, which we follow.
    """

    def each(of: Any) -> Any:
        def numbers(params: optax.Params) -> optax.Params:
            is_width = lambda node: isinstance(node, Width)  # noqa: E731
            found = widths(params, base_shapes, fan_in_axis)
            return jax.tree.map(of, found, is_leaf=is_width)

        return numbers

    def step(g: Signal) -> Signal:
        width = leaf_multipliers(g, each(lambda w: w.multiplier if w.kind == "matrix" else 1.0))
        spread = leaf_multipliers(g, each(lambda w: 1.0 if w.is_output else w.multiplier))
        decay = weight_decay
        if scale_weight_decay and not is_neutral(weight_decay):
            decay = weight_decay * width
        decaying = decay_weights(decay, mask=mask)
        adam = scale_by_adam(b1=b1, b2=b2, eps=eps / spread if scale_eps else eps)
        u = g >> adam >> decaying if decoupled else g >> decaying >> adam
        return u / width

    return flow(step)


def _halved(params: Any) -> Any:
    return jax.tree.map(lambda x: tuple(map(_half, x.shape)) if x.ndim == 2 else x.shape, params)


def _half(size: int) -> int:
    return (size + 1) // 2


@method(
    "Yang & Littwin 2023, Tensor Programs IVb: Adaptive Optimization in the Infinite-Width Limit",
    arxiv="2308.01814",
    tags=("adam", "width-transfer", "decoupled-decay", "layerwise"),
    required={"base_shapes": _halved},
)
@transformation()
def mup_adam(
    learning_rate: optax.ScalarOrSchedule,
    base_shapes: BaseShapes,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    decoupled: bool = False,
    scale_weight_decay: bool = True,
    scale_eps: bool = False,
    fan_in_axis: Axis = -1,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam or AdamW in muP; the rule is that of `scale_by_mup_adam`.

    The best rate of a narrow model is then that of a wide one.

    Args:
      learning_rate: number or schedule, that of the base model.
      base_shapes, b1, b2, eps, weight_decay, decoupled, scale_weight_decay, scale_eps,
        fan_in_axis, mask: see `scale_by_mup_adam`.
      mu_dtype, nu_dtype: see `scale_by_mup_adam`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mup_adam
      >>> params = {"hidden": jnp.ones((4, 4)), "bias": jnp.ones(4)}
      >>> opt = mup_adam(0.5, {"hidden": (2, 2), "bias": (2,)})
      >>> updates, state = opt.update(params, opt.init(params))
      >>> round(float(updates["hidden"][0, 0]), 3), round(float(updates["bias"][0]), 3)
      (-0.25, -0.5)
    """
    return chain(
        handed_on(scale_by_mup_adam),
        scale_by_learning_rate(learning_rate),
    )
