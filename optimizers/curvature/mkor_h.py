"""MKOR-H."""

from typing import Any

import optax

from ...catalogue import method
from ...transforms import (
    Flow,
    Signal,
    any_number,
    chain,
    count_from_1,
    debias,
    decay_rate,
    delay,
    either,
    ema,
    flow,
    named,
    step_count,
    tap,
    transformation,
    where,
)
from .mkor import heavy_ball, scale_by_mkor

INFINITE = float("inf")


@transformation(loss_decay=decay_rate, switch_interval=count_from_1, switch_threshold=any_number)
def scale_by_mkor_h(
    loss_decay: Any = 0.99,
    switch_interval: int = 100,
    switch_threshold: Any = 0.01,
    **mkor_arguments: Any,
) -> Flow:
    r"""MKOR until the loss falls too slowly, then for good the plain gradient.

    $$l_t = \beta\, l_{t-1} + (1 - \beta) f_t, \qquad \bar l_t = l_t / (1 - \beta^t)$$

    At every `switch_interval`-th step, from the second such step on: if the smoothed loss fell by
    less than `switch_threshold` times the magnitude of what it was at the check before, the
    switch is made, effective at once. The statistics of MKOR then rest and cost nothing. The tap
    `second_order` is true until then.

    Args:
      loss_decay: beta, in [0, 1).
      switch_interval: steps between checks.
      switch_threshold: least relative decrease per interval that keeps MKOR going.
      **mkor_arguments: those of `scale_by_mkor`.

    Extra inputs:
      value: the loss at params.
      layer_inputs, layer_cotangents: see `scale_by_k_fac`.

    References:
      Mozaffari et al. 2023, MKOR. The paper monitors the rate at which the loss falls without
      giving constants, the official code has a manual flag: the rule is ours.
    """
    second_order = scale_by_mkor(**mkor_arguments)

    def step(g: Signal, value: Signal) -> Signal:
        loss = value >> named("loss", ema(loss_decay)) >> debias(loss_decay)
        before = delay(INFINITE, name="loss_before")
        going = delay(True, name="second_order")
        check = step_count() % switch_interval == 0
        slow = before - loss < switch_threshold * abs(before)
        going_on = going << going & ~(check & slow)
        before << where(check, loss, before)
        return either(tap("second_order", going_on), second_order, optax.identity(), g)

    return flow(step)


@method(
    "Mozaffari, Li, Zhang & Mehri Dehnavi 2023, MKOR: Momentum-Enabled Kronecker-Factor-Based "
    "Optimizer Using Rank-1 Updates (hybrid MKOR-H)",
    arxiv="2306.01685",
    learning_rate=0.02,
    complex_ok=False,
)
@transformation(loss_decay=decay_rate, switch_interval=count_from_1, switch_threshold=any_number)
def mkor_h(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Any = 0.9,
    weight_decay: Any = 0.0,
    update_interval: int = 10,
    clip_value: Any = 100.0,
    loss_decay: Any = 0.99,
    switch_interval: int = 100,
    switch_threshold: Any = 0.01,
    backend: Any = None,
    **mkor_arguments: Any,
) -> Flow:
    """MKOR-H: `scale_by_mkor_h`, then heavy-ball SGD or another first-order method.

    The first-order method and its state go on through the switch.

    Args:
      learning_rate: lr, a number or a schedule.
      momentum: heavy ball, undamped.
      weight_decay: coupled.
      update_interval: see `scale_by_mkor`.
      clip_value: likewise.
      loss_decay: see `scale_by_mkor_h`.
      switch_interval: likewise.
      switch_threshold: likewise.
      backend: see `mkor`.
      **mkor_arguments: further ones of `scale_by_mkor`.

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
    precondition = scale_by_mkor_h(
        loss_decay,
        switch_interval,
        switch_threshold,
        update_interval=update_interval,
        clip_value=clip_value,
        **mkor_arguments,
    )
    return chain(precondition, backend or heavy_ball(learning_rate, momentum, weight_decay))
