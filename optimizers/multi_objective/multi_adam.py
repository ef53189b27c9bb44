"""MultiAdam: Adam for a loss of several terms."""

from collections.abc import Sequence

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    FlowError,
    NonNegative,
    Signal,
    Size,
    chain,
    debias,
    debiased_root,
    divide,
    ema,
    flow,
    handed_on,
    is_neutral,
    lift,
    named,
    running_max,
    scale_by_adam,
    scale_by_learning_rate,
    scheduled,
    square,
    transformation,
)
from ...transforms.control import combine, stacked_gradients


@transformation()
def scale_by_multi_adam(
    b1: Decay = 0.99,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    group_weights: Sequence[float] | None = None,
    amsgrad: bool = False,
    agg_b1: Decay | None = None,
    agg_b2: Decay | None = None,
    *,
    num_groups: Size | None = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """The mean of the directions that Adam takes for each term of a loss.

    Gradients come stacked: every leaf has a leading axis of groups i, one per term.

        g_i <- g_i + weight_decay x_{t-1}
        m_i <- b1 m_i + (1 - b1) g_i,    v_i <- b2 v_i + (1 - b2) g_i^2
        u_t = sum_i w_i m_i / (sqrt(v_i / (1 - b2^t)) + eps) / (1 - b1^t)

    Each term is normalised by its own second moment, so that none drowns the others; gradients that
    were added up before cannot be told apart any more. A group without gradient for a leaf adds
    nothing there, but its weight still counts.

    Args:
      b1: decay of the momenta, in [0, 1).
      b2: decay of the second moments, in [0, 1).
      eps: added to the debiased root.
      weight_decay: L2, added to every group's gradient.
      group_weights: w; default 1/m each.
      amsgrad: use the running maxima of v_i, taken before v is debiased.
      agg_b1, agg_b2: if given, Adam with these decays follows on the sum, before it is divided by
        1 - b1^t: as in the code, although the sum is then normalised already.
      num_groups: m, which the state's shape depends on; default the number of weights, or 2. With 1
        gradients may lack the leading axis.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Yao et al. 2023, MultiAdam: Parameter-wise Scale-invariant Optimizer for Multiscale Training
      of Physics-informed Neural Networks (arXiv 2306.02816), and src/optimizer/multiadam.py of
      i207M/PINNacle, by the same authors, which we follow.
    """
    if not (group_weights is None or hasattr(group_weights, "__len__")):
        raise FlowError(f"multi_adam: group_weights={group_weights!r} must be a sequence")
    given = None if group_weights is None else len(group_weights)
    groups = num_groups or given or 2
    if given not in (None, groups):
        raise FlowError(f"multi_adam: {given} group_weights for num_groups={num_groups}")
    if (agg_b1 is None) != (agg_b2 is None):
        raise FlowError("multi_adam: agg_b1 and agg_b2 come together")
    weights = [1 / groups] * groups if group_weights is None else group_weights

    def decayed(each: Signal, params: Signal) -> Signal:
        return _with_decay(each, params, scheduled(weight_decay))

    def step(g: Signal) -> Signal:
        each = stacked_gradients(g, groups)
        if not is_neutral(weight_decay):
            each = each >> flow(decayed, name="decay_weights")
        m = each >> named("mu", ema(b1))
        v = square(each) >> named("nu", ema(b2))
        if amsgrad:
            v = v >> named("nu_max", running_max())
        u = combine(divide(m, debiased_root(v, b2, eps), eps), weights)
        if agg_b1 is not None and agg_b2 is not None:
            u = u >> named("aggregate", scale_by_adam(b1=agg_b1, b2=agg_b2, eps=eps))
        return u >> debias(b1)

    return flow(step)


_with_decay = lift(lambda each, x, decay: each + (decay * x)[None], "with_decay")


@method(
    "Yao et al. 2023, MultiAdam: Parameter-wise Scale-invariant Optimizer for Multiscale Training "
    "of Physics-informed Neural Networks",
    arxiv="2306.02816",
    tags=("adam", "partitioned"),
    small_model={"num_groups": 1},
)
@transformation()
def multi_adam(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: Decay = 0.99,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    group_weights: Sequence[float] | None = None,
    amsgrad: bool = False,
    agg_b1: Decay | None = None,
    agg_b2: Decay | None = None,
    *,
    num_groups: Size | None = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """MultiAdam for stacked gradients; the rule is that of `scale_by_multi_adam`.

    Args:
      learning_rate: number or schedule.
      b1, b2, eps, weight_decay, group_weights, amsgrad, agg_b1, agg_b2, num_groups: see
        `scale_by_multi_adam`.
      mu_dtype, nu_dtype: see `scale_by_multi_adam`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import multi_adam
      >>> losses = lambda x: jnp.stack([jnp.sum(x**2), 1000 * x[0]])
      >>> params = jnp.array([1.0, -4.0])
      >>> opt = multi_adam(0.5)
      >>> updates, state = opt.update(jax.jacrev(losses)(params), opt.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.5, 0.25]
    """
    return chain(
        handed_on(scale_by_multi_adam),
        scale_by_learning_rate(learning_rate),
    )
