"""Hypergradient descent, around any direction, SGD and Adam."""

from typing import Annotated

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    FlowError,
    Interval,
    Mask,
    NonNegative,
    Signal,
    chain,
    clip,
    decay_weights,
    delay,
    divide_or_zero,
    flow,
    global_dot,
    global_norm,
    is_neutral,
    saturate,
    scale_by_adam,
    tap,
    trace,
    transformation,
)

PAPER = "Baydin et al. 2018, Online Learning Rate Adaptation with Hypergradient Descent"
ARXIV = "1703.04782"

Rate = Annotated[float, Interval(0.0, float("inf"))]
Bounds = tuple[float, float] | None

ROOM = 2.0**-23
"""Of the largest number of the format: what a step may be."""


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("own-rate",),
    learning_rate=1.0,
    required={"learning_rate": 1e-3},
)
@transformation()
def hypergradient_descent(
    inner: optax.GradientTransformation,
    learning_rate: Rate,
    hypergrad_learning_rate: NonNegative = 1e-6,
    bounds: Bounds = None,
    multiplicative: bool = False,
    descends: bool = True,
) -> Flow:
    """Descends along a direction at a rate that follows the gradient with respect to itself.

        a_t = a_{t-1} + h <g_t, u_{t-1}>,   a_0 = learning_rate,   u_0 = 0
        a_t = a_{t-1} (1 + h <g_t, u_{t-1}> / (|g_t| |u_{t-1}|))      if multiplicative
        u_t = -inner(g_t)
        x_{t+1} = x_t - a_t u_t

    with products and norms over all leaves. As long as gradients agree with the last direction, the
    rate grows; without bounds it may become negative. The tap "learning_rate" is a_t.

    The rate grows by a product of gradients, so with large ones the method itself diverges. So that
    the params stay numbers then, the rate and every entry of a step are at most 2^-23 times the
    largest number of the format, 4e31 in float32; nothing else is changed by that.

    Args:
      inner: any optimizer with a learning rate of 1.
      learning_rate: where the rate starts.
      hypergrad_learning_rate: h; the useful size depends on that of the gradients, and on how many
        params there are.
      bounds: (lowest, highest) rate; default none.
      multiplicative: see above.
      descends: True for a finished optimizer, whose update goes against the gradient; False for a
        direction (`scale_by_...`), which goes with it: u_t = inner(g_t).

    Returns:
      The optimizer; it adds one copy of the params to the inner state.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import hypergradient_descent, sgd
      >>> opt = hypergradient_descent(sgd(1.0), 0.5, hypergrad_learning_rate=0.25)
      >>> g = jnp.array([2.0])
      >>> _, state = opt.update(g, opt.init(g))
      >>> print(opt.update(g, state)[0])
      [-3.]

    References:
      Baydin et al. 2018, Online Learning Rate Adaptation with Hypergradient Descent (arXiv
      1703.04782). The authors' Adam-HD moves the rate tensor by tensor within one step, so that the
      first ones go at a rate that is only in part the new one; ours moves it once, by all of them.
    """
    if bounds is not None and not (len(bounds) == 2 and bounds[0] <= bounds[1]):
        raise FlowError(f"hypergradient_descent: bounds={bounds!r} must be (lowest, highest)")

    def step(g: Signal) -> Signal:
        u = -(g >> inner) if descends else g >> inner
        last = delay(u, name="last_direction")
        rate = delay(1.0 * learning_rate, name="learning_rate")
        gain = global_dot(g, last)
        if multiplicative:
            gain = rate * divide_or_zero(gain, global_norm(g) * global_norm(last))
        new = rate + hypergrad_learning_rate * gain
        new = rate << (_held(new) if bounds is None else clip(new, *bounds))
        last << u
        return -_held(tap("learning_rate", new) * u)

    return flow(step)


def _held(x: Signal) -> Signal:
    """So far from the end of the format that sums of many are numbers; exact by a power of two."""
    return ROOM * saturate(x / ROOM)


@method(PAPER, arxiv=ARXIV, tags=("own-rate", "momentum"), learning_rate=0.05)
@transformation()
def sgd_hd(
    learning_rate: Rate,
    hypergrad_learning_rate: NonNegative = 1e-6,
    momentum: Decay = 0.0,
    dampening: NonNegative = 0.0,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    *,
    bounds: Bounds = None,
) -> Flow:
    """SGD whose rate follows its hypergradient; see `hypergradient_descent`.

    Args:
      learning_rate, hypergrad_learning_rate, bounds: see `hypergradient_descent`.
      momentum: of a heavy ball, in [0, 1); 0 keeps none.
      dampening: how much of a gradient is left out of the heavy ball; never of the first.
      nesterov: look one step ahead along the heavy ball.
      weight_decay: L2 regularisation, added to the gradient that both the rate and the ball see.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; its state is the size of the params, twice with momentum.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sgd_hd
      >>> opt = sgd_hd(0.5, hypergrad_learning_rate=0.25)
      >>> g = jnp.array([2.0])
      >>> _, state = opt.update(g, opt.init(g))
      >>> print(opt.update(g, state)[0])
      [-3.]

    References:
      Baydin et al. 2018 (arXiv 1703.04782), and the authors' SGD-HD, which agrees.
    """
    ball = trace(momentum, nesterov, dampening=dampening, name="trace")
    direction = flow(lambda g: g if is_neutral(momentum) else g >> ball, name="direction")
    return chain(
        decay_weights(weight_decay, mask=mask),
        hypergradient_descent(
            direction,
            learning_rate=learning_rate,
            hypergrad_learning_rate=hypergrad_learning_rate,
            bounds=bounds,
            descends=False,
        ),
    )


@method(PAPER, arxiv=ARXIV, tags=("own-rate", "adam"))
@transformation()
def adam_hd(
    learning_rate: Rate = 1e-3,
    hypergrad_learning_rate: NonNegative = 1e-8,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    *,
    bounds: Bounds = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam whose rate follows its hypergradient; see `hypergradient_descent`.

    Args:
      learning_rate, hypergrad_learning_rate, bounds: see `hypergradient_descent`.
      b1, b2, mu_dtype: see `scale_by_adam`.
      eps: added to the root before it is debiased.
      weight_decay: L2 regularisation, added to the gradient that both the rate and Adam see.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; its state is three times the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import adam_hd
      >>> opt = adam_hd(0.5, hypergrad_learning_rate=0.25)
      >>> g = jnp.array([2.0])
      >>> _, state = opt.update(g, opt.init(g))
      >>> print(opt.update(g, state)[0].round(3))
      [-1.]

    References:
      Baydin et al. 2018 (arXiv 1703.04782), and the authors' Adam-HD, of which the order within a
      step differs; see `hypergradient_descent`.
    """
    direction = scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=mu_dtype, eps_before_correction=True)
    return chain(
        decay_weights(weight_decay, mask=mask),
        hypergradient_descent(
            direction,
            learning_rate=learning_rate,
            hypergrad_learning_rate=hypergrad_learning_rate,
            bounds=bounds,
            descends=False,
        ),
    )
