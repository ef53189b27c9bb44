"""Ranger21."""

import math
from typing import Annotated

import optax

from ...registry import method
from ...schedules import ranger21_schedule
from ...transforms import (
    Axis,
    Constant,
    Decay,
    DType,
    Flow,
    Fraction,
    Interval,
    Length,
    NonNegative,
    Number,
    Share,
    Signal,
    Static,
    chain,
    debias,
    debiased_root,
    divide,
    ema,
    flow,
    handed_on,
    is_neutral,
    named,
    running_max,
    scheduled,
    softplus,
    square,
    step_count,
    transformation,
)
from ...transforms.accumulate import back_to_slow_weights, positive_negative_momentum
from ...transforms.shape import (
    adaptive_grad_clip,
    centralize_gradients,
    norm_loss_gradient,
    normalize_gradients,
)
from ...transforms.step_size import stable_decay, typical_gradient

Peak = Annotated[Constant, Interval(0.0, math.inf)]
"""A rate between which the method's own schedule runs."""
StaticDecay = Annotated[float, Static(), Interval(0.0, 1.0, high_open=True)]


@transformation()
def scale_by_ranger21(
    learning_rate: optax.ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    normloss_factor: Number = 1e-4,
    agc_clip: NonNegative | None = 1e-2,
    agc_eps: NonNegative = 1e-3,
    softplus_beta: NonNegative | None = 50.0,
    pnm_beta: Number = 1.0,
    noise_beta: Number | None = None,
    max_variance: bool = False,
    variance_offset: NonNegative = 0.0,
    normalize: bool = True,
    channel_axis: Axis = -1,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    r"""What Ranger21 does at every step, rate and sign included, without look-ahead.

    With the incoming gradient clipped (`adaptive_grad_clip`), centralised and normalised to g,

    .. math::
        v_t &= b_2 v_{t-1} + (1 - b_2) g_t^2, \qquad \hat v_t = v_t / (1 - b_2^t) \\
        \theta' &= \theta \, (1 - \eta \lambda / s_t), \qquad
            s_t = \text{`typical\_gradient`}(\hat v_t) \\
        \theta'' &= \theta' - 2 \eta f \bigl(1 - 1 / (\|\theta'\| + \epsilon)\bigr) \theta'
            \quad \text{unit by unit, see `unit\_norm`} \\
        \theta_t &= \theta'' - \frac{\eta}{1 - b_1^t}
            \frac{p_t}{\mathrm{softplus}_\beta(\sqrt{\hat v_t} + \epsilon)}

    where p is the `positive_negative_momentum` of g, centralised and normalised once more. Each
    piece is a public transformation or function of its own.

    Args:
      learning_rate: eta; number or schedule. It multiplies decay, norm loss and step alike.
      b1: decay of the momenta, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root and to the norms of the norm loss.
      weight_decay: lambda, of the stable weight decay.
      normloss_factor: f, strength of the norm loss.
      agc_clip: largest gradient norm of a unit as a fraction of its weights' norm; None or 0: no
        clipping.
      agc_eps: least norm that the weights are taken to have there.
      softplus_beta: sharpness of the softplus of the denominator; None or 0: no softplus.
      pnm_beta: weight of the negative momentum; the paper has 0.9.
      noise_beta: the weight in its normalization; default b2, as in the code; the paper has 0.9.
      max_variance: divide by the running maximum of v, as in the paper.
      variance_offset: added to the summed second moments in s; 1 is what pytorch_optimizer does.
      normalize: divide each gradient by its standard deviation.
      channel_axis: axis of the output channels: -1 as in Flax kernels (the default), 0 in torch's
        layout.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    References:
      Wright & Demeure 2021, Ranger21: a synergistic deep learning optimizer (arXiv 2106.13731).
      Follows lessw2020/Ranger21, except that decay and norm loss act on every leaf, as in the
      paper, where a stale loop variable in the code confines them to one.
    """
    steady = [normalize_gradients()] if normalize else []
    prepare = chain(centralize_gradients(channel_axis), *steady)

    def step(g: Signal, params: Signal) -> Signal:
        rate = scheduled(learning_rate)
        if agc_clip is not None and not is_neutral(agc_clip):
            g = g >> adaptive_grad_clip(agc_clip, agc_eps, channel_axis)
        g = g >> prepare
        v = square(g) >> named("nu", ema(b2))
        typical = typical_gradient(v >> debias(b2), variance_offset)
        x = params * (1 - rate * stable_decay(weight_decay, typical))
        x = x - rate * norm_loss_gradient(x, normloss_factor, eps, channel_axis)
        if max_variance:
            v = v >> named("nu_max", running_max())
        root = debiased_root(v, b2, eps)
        if softplus_beta is not None and not is_neutral(softplus_beta):
            root = softplus(root, softplus_beta)
        pnm = positive_negative_momentum(b1, pnm_beta, b2 if noise_beta is None else noise_beta)
        return x - params - rate * divide(g >> prepare >> pnm >> debias(b1), root, eps)

    return flow(step)


@method(
    "Wright & Demeure 2021, Ranger21: a synergistic deep learning optimizer",
    arxiv="2106.13731",
    tags=("adam", "own-schedule", "evaluation-weights", "bounded"),
    learning_rate=1e-2,
    required={"total_steps": 400},
    small_model={"warmup_steps": 10},
)
@transformation()
def ranger21(
    learning_rate: Peak,
    total_steps: Length,
    b1: Decay = 0.9,
    b2: StaticDecay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    normloss_factor: Number = 1e-4,
    agc_clip: NonNegative | None = 1e-2,
    agc_eps: NonNegative = 1e-3,
    softplus_beta: NonNegative | None = 50.0,
    pnm_beta: Number = 1.0,
    noise_beta: Number | None = None,
    max_variance: bool = False,
    variance_offset: NonNegative = 0.0,
    normalize: bool = True,
    sync_period: Length | None = 5,
    slow_step_size: Fraction = 0.5,
    warmup_steps: Length | None = None,
    warmdown_start: Share = 0.72,
    end_value: Peak = 3e-5,
    channel_axis: Axis = -1,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Ranger21: eight ideas in one; the rule is that of `scale_by_ranger21`.

    The rate follows `ranger21_schedule`, and Lookahead (see `lookahead`) works around the whole.

    Args:
      learning_rate: the peak of the rate, a number.
      total_steps: length of the run.
      b1, b2, eps, weight_decay, normloss_factor, agc_clip, agc_eps, softplus_beta, pnm_beta,
        noise_beta, max_variance, variance_offset, normalize, channel_axis: see
        `scale_by_ranger21`.
      sync_period: steps between two synchronisations of the look-ahead; None or 0: none.
      slow_step_size: share of the fast weights at a synchronisation.
      warmup_steps: steps of the linear warm-up; default by b2, see `ranger21_schedule`.
      warmdown_start: fraction of the run at which the linear warm-down starts.
      end_value: rate at the last step.
      mu_dtype, nu_dtype: see `scale_by_ranger21`.

    Raises:
      FlowError: if `learning_rate` is a schedule; if b2 or warmdown_start, which set lengths, are
        not Python numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import ranger21
      >>> opt = ranger21(0.5, total_steps=100, softplus_beta=None, weight_decay=0.0)
      >>> params = jnp.array([1.0, -1.0])
      >>> updates, _ = opt.update(2 * params, opt.init(params), params)
      >>> [round(float(x), 3) for x in updates]
      [-0.039, 0.039]
    """
    fast = handed_on(
        scale_by_ranger21,
        learning_rate=ranger21_schedule(
            learning_rate,
            total_steps,
            b2,
            warmup_steps,
            warmdown_start=warmdown_start,
            end_value=end_value,
        ),
    )
    if not sync_period:
        return fast

    def step(g: Signal, params: Signal) -> Signal:
        sync = step_count() % sync_period == 0
        return back_to_slow_weights(g >> fast, params, sync, slow_step_size)

    return flow(step)
