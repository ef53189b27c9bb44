"""MKOR-H."""

import math
from collections.abc import Sequence
from typing import Annotated

import optax

from ....registry import method
from ....transforms import (
    Constant,
    Decay,
    DType,
    Flow,
    Fraction,
    Interval,
    Length,
    NonNegative,
    Number,
    Period,
    Positive,
    Signal,
    chain,
    debias,
    delay,
    either,
    ema,
    flow,
    handed_on,
    named,
    step_count,
    tap,
    transformation,
    where,
)
from ....transforms.control import at_finite_losses
from ....transforms.kronecker import Layers
from .mkor import Variant, heavy_ball, scale_by_mkor

Bound = Annotated[Constant, Interval(0.0, math.inf, low_open=True)]
"""A bound of entries."""


@transformation()
def scale_by_mkor_h(
    loss_decay: Decay = 0.99,
    switch_interval: Period = 100,
    switch_threshold: Number = 0.01,
    update_interval: Period = 10,
    warmup_steps: Length = 0,
    clip_value: Bound = 100.0,
    variant: Variant = "official",
    gamma: Decay = 0.9,
    stabilization_factor: Fraction = 0.9,
    stabilization_threshold: Positive = 2.0,
    first_order_layers: Sequence[str] = (),
    layers: Layers = None,
    axis_name: str | None = None,
) -> Flow:
    r"""MKOR until the loss falls too slowly, then for good the plain gradient.

    $$l_t = \beta\, l_{t-1} + (1 - \beta) f_t, \qquad \bar l_t = l_t / (1 - \beta^t)$$

    At every `switch_interval`-th step, from the second check on: if the smoothed loss fell by
    less than `switch_threshold` times the magnitude of what it was at the check before, the
    switch is made, effective at once. The statistics of MKOR then rest and cost nothing. The tap
    `second_order` is true until then.

    A step whose loss is not finite does not count: the state stays, and the update is 0.

    Args:
      loss_decay: beta, in [0, 1).
      switch_interval: steps between checks.
      switch_threshold: least relative decrease per interval that keeps MKOR going.
      update_interval: this and the following as in `scale_by_mkor`.
      warmup_steps: see there.
      clip_value: see there.
      variant: see there.
      gamma: see there.
      stabilization_factor: see there.
      stabilization_threshold: see there.
      first_order_layers: see there.
      layers: see there.
      axis_name: see there.

    Extra inputs:
      value: the loss at params, the same on all devices of `axis_name`.
      layer_inputs, layer_cotangents: see `scale_by_k_fac`.

    References:
      Mozaffari et al. 2023, MKOR. The paper monitors the rate at which the loss falls without
      giving constants, the official code has a manual flag: the rule is ours.
    """
    second_order = handed_on(scale_by_mkor)

    def step(g: Signal, value: Signal) -> Signal:
        loss = value >> named("loss", ema(loss_decay)) >> debias(loss_decay)
        before, has_before = delay(0.0, name="loss_before"), delay(False, name="has_loss_before")
        going = delay(True, name="second_order")
        check = step_count() % switch_interval == 0
        slow = has_before & (before - loss < switch_threshold * abs(before))
        going_on = going << (going & ~(check & slow))
        before << where(check, loss, before)
        has_before << (has_before | check)
        return g >> either(tap("second_order", going_on), second_order, optax.identity())

    return at_finite_losses(flow(step))


@method(
    "Mozaffari, Li, Zhang & Mehri Dehnavi 2023, MKOR: Momentum-Enabled Kronecker-Factor-Based "
    "Optimizer Using Rank-1 Updates (hybrid MKOR-H)",
    arxiv="2306.01685",
    tags=("curvature", "kronecker", "matrix", "layerwise"),
    learning_rate=0.02,
)
@transformation()
def mkor_h(
    learning_rate: optax.ScalarOrSchedule | None,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    update_interval: Period = 10,
    clip_value: Bound = 100.0,
    loss_decay: Decay = 0.99,
    switch_interval: Period = 100,
    switch_threshold: Number = 0.01,
    warmup_steps: Length = 0,
    variant: Variant = "official",
    gamma: Decay = 0.9,
    stabilization_factor: Fraction = 0.9,
    stabilization_threshold: Positive = 2.0,
    first_order_layers: Sequence[str] = (),
    backend: optax.GradientTransformation | None = None,
    layers: Layers = None,
    axis_name: str | None = None,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """MKOR-H: `scale_by_mkor_h`, then heavy-ball SGD or another first-order method.

    The first-order method and its state go on through the switch. Where the loss is not finite,
    params and state stay.

    Args:
      learning_rate: lr, a number or a schedule; None where the backend has its own.
      momentum: heavy ball, undamped.
      weight_decay: coupled.
      update_interval: see `scale_by_mkor`.
      clip_value: likewise.
      loss_decay: see `scale_by_mkor_h`.
      switch_interval: likewise.
      switch_threshold: likewise.
      warmup_steps: this and the following as in `mkor`.
      variant: see there.
      gamma: see there.
      stabilization_factor: see there.
      stabilization_threshold: see there.
      first_order_layers: see there.
      backend: see there.
      layers: see there.
      axis_name: see there.
      mu_dtype: storage of the momentum; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mkor_h
      >>> params = {"dense": {"kernel": jnp.ones((1, 1))}}
      >>> opt = mkor_h(0.5)
      >>> data = {"dense": jnp.ones((2, 1))}
      >>> updates, state = opt.update(
      ...     params, opt.init(params), params, value=1.0, layer_inputs=data, layer_cotangents=data)
      >>> float(updates["dense"]["kernel"][0, 0])
      -0.5
    """
    precondition = handed_on(scale_by_mkor_h)
    first_order = backend or heavy_ball(learning_rate, momentum, weight_decay)
    return chain(precondition, at_finite_losses(first_order))
