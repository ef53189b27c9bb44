"""Averages of the weights, around any optimizer."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Count,
    Decay,
    Flow,
    NonNegative,
    Period,
    Scalar,
    Signal,
    Size,
    delay,
    flow,
    leaf_sum,
    maximum,
    minimum,
    scheduled,
    step_count,
    transformation,
    where,
    window,
)


@method(
    "Polyak & Juditsky 1992, Acceleration of Stochastic Approximation by Averaging",
    tags=("evaluation-weights",),
)
@transformation()
def weight_average(
    inner: optax.GradientTransformation,
    decay: Decay = 0.999,
    form: Literal["ema", "uniform", "polynomial", "window"] = "ema",
    gamma: NonNegative = 8.0,
    size: Size = 5,
    update_interval: Period = 1,
    start: Count = 0,
    debias: bool = True,
) -> Flow:
    """Keeps an average of the weights beside any optimizer, which goes on as if it were alone.

    With y_n the params after the n-th step that counts: every `update_interval`-th behind `start`.

        ema          a_n = d_n a_{n-1} + (1 - d_n) y_n
                     d_n = decay, or with `debias` min(decay, (1 + n) / (10 + n))
        uniform      a_n = mean of y_1 .. y_n
        polynomial   a_n = (1 - c_n) a_{n-1} + c_n y_n,  c_n = (1 + gamma) / (n + gamma)
        window       a_n = mean of the last `size` of the y

    Before y_1 the average is what the params were at the start. `eval_params(state, params)` gives
    it, also inside chains, masks, partitions and other wrappers.

    Args:
      inner: any optimizer; this wrapper is the outermost transformation.
      decay: of "ema", in [0, 1).
      form: see above.
      gamma: of "polynomial"; 0 is the uniform average, 8 weighs the last fifth or so.
      size: of "window", which keeps as many copies of the params.
      update_interval: steps between two that count.
      start: steps before the first that may count: those of a tail average's head.
      debias: "ema" starts fast, so that it does not remember where the training began.

    Returns:
      The wrapped optimizer; it needs `params`, and its state is one copy of them more ("window":
      `size` and one).

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from gradchain import eval_params
      >>> from gradchain.optimizers import sgd, weight_average
      >>> opt = weight_average(sgd(0.5), form="uniform")
      >>> x = jnp.array([8.0])
      >>> state = opt.init(x)
      >>> for _ in range(2):                              # loss x^2 / 2
      ...     u, state = opt.update(x, state, x)
      ...     x = optax.apply_updates(x, u)
      >>> x.tolist(), eval_params(state, x).tolist()
      ([2.0], [3.0])

    References:
      Polyak & Juditsky 1992, Acceleration of Stochastic Approximation by Averaging; Shamir & Zhang
      2013, Stochastic Gradient Descent for Non-smooth Optimization (polynomial); Izmailov et al.
      2018, Averaging Weights Leads to Wider Optima and Better Generalization (arXiv 1803.05407,
      uniform tail); Kaddour 2022, Stop Wasting My Time! Saving Days of ImageNet and BERT Training
      with Latest Weight Averaging (arXiv 2209.14981, window). The start of "ema" is TensorFlow's.
    """

    def step(g: Signal, params: Signal) -> Signal:
        u = g >> inner
        t = step_count()
        due = (t > start) & ((t - start) % update_interval == 0)
        n = maximum((t - start) // update_interval, 1)
        average = delay(params, name="average", evaluation=(1.0, 0.0))
        y = params + u
        if form == "window":
            kept = y >> window(size, slot=where(due, (n - 1) % size, -1), name="recent")
            new = leaf_sum(kept, axis=0) / minimum(n, size)
        else:
            new = average + share(n) * (y - average)
        average << where(due, new, average)
        return u

    def share(n: Signal) -> Scalar:
        if form == "uniform":
            return 1.0 / n
        if form == "polynomial":
            return (1 + scheduled(gamma)) / (n + gamma)
        rate = scheduled(decay)
        return 1 - (minimum(rate, (1.0 + n) / (10.0 + n)) if debias else rate)

    return flow(step)


@method(
    "Shamir & Zhang 2013, Stochastic Gradient Descent for Non-smooth Optimization: Convergence "
    "Results and Optimal Averaging Schemes",
    tags=("evaluation-weights",),
)
@transformation()
def polynomial_averaging(inner: optax.GradientTransformation, gamma: NonNegative = 8.0) -> Flow:
    """Keeps an average of the weights in which the t-th weighs about t^gamma.

        a_t = (1 - c_t) a_{t-1} + c_t x_{t+1},    c_t = (1 + gamma) / (t + gamma)

    with x_{t+1} the params after the t-th step. It is `weight_average(inner, form="polynomial")`,
    and goes with `dog`. `eval_params(state, params)` gives the average.

    Args:
      inner: any optimizer; this wrapper is the outermost transformation.
      gamma: 0 is the uniform average, 8 weighs the last fifth or so.

    Returns:
      The wrapped optimizer; it needs `params`, and its state is one copy of them more.

    Raises:
      ValueError: for a negative gamma.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from gradchain import eval_params
      >>> from gradchain.optimizers import polynomial_averaging, sgd
      >>> opt = polynomial_averaging(sgd(0.5), gamma=1.0)
      >>> x = jnp.array([12.0])
      >>> state = opt.init(x)
      >>> for _ in range(2):                              # loss x^2 / 2
      ...     u, state = opt.update(x, state, x)
      ...     x = optax.apply_updates(x, u)
      >>> x.tolist(), eval_params(state, x).tolist()
      ([3.0], [4.0])

    References:
      Shamir & Zhang 2013, Stochastic Gradient Descent for Non-smooth Optimization; Ivgi, Hinder &
      Carmon 2023 (arXiv 2302.12022), whose package dog-optimizer we follow.
    """
    return weight_average(inner, form="polynomial", gamma=gamma)
