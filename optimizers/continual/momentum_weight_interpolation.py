"""Momentum-based weight interpolation."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    Period,
    Signal,
    delay,
    flow,
    scheduled,
    step_count,
    transformation,
    where,
)


@method(
    "Stojanovski, Roth & Akata 2022, Momentum-based Weight Interpolation of Strong Zero-Shot "
    "Models for Continual Learning",
    arxiv="2211.03186",
    tags=("evaluation-weights",),
    small_model={"decay": 0.9},
)
@transformation()
def momentum_weight_interpolation(
    base: optax.GradientTransformation, decay: Decay = 0.999, update_interval: Period = 1
) -> Flow:
    """Keeps a moving average of the weights that starts at the weights themselves.

        slow_0 = x_0
        slow_t = decay slow_{t-1} + (1 - decay) x_t      at every `update_interval`-th step

    with x_t the params after the step. Training goes on from x_t; `eval_params(state, params)`
    gives the slow weights. Nothing is debiased: where the average starts is the point.

    Args:
      base: any optimizer; this wrapper is the outermost transformation.
      decay: of the average, in [0, 1).
      update_interval: steps between two averagings.

    Returns:
      The wrapped optimizer; it needs `params`, and its state is one more copy of them.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from gradchain import eval_params
      >>> from gradchain.optimizers import momentum_weight_interpolation, sgd
      >>> opt = momentum_weight_interpolation(sgd(1.0), decay=0.75)
      >>> x = jnp.array([4.0])
      >>> u, state = opt.update(x, opt.init(x), x)
      >>> eval_params(state, optax.apply_updates(x, u)).tolist()
      [3.0]

    References:
      Stojanovski, Roth & Akata 2022, Momentum-based Weight Interpolation of Strong Zero-Shot Models
      for Continual Learning (arXiv 2211.03186). Written after the paper; no official code was
      examined.
    """

    def step(g: Signal, params: Signal) -> Signal:
        u = g >> base
        slow = delay(params, name="slow", evaluation=(1.0, 0.0))
        due = step_count() % update_interval == 0
        slow << where(due, decay * slow + (1 - scheduled(decay)) * (params + u), slow)
        return u

    return flow(step)
