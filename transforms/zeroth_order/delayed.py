"""A zeroth-order step that is taken one call later."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.errors import FlowError
from ..notation.functions import where
from ..notation.hyperparameters import Key, Mask, NonNegative, Positive, Sampler, Size
from ..notation.signal import Signal
from ..notation.steps import delay, scheduled, step_count, tap
from ..step_size.weight_decay import decay_weights
from ..trees.random import stored_key
from .directions import Directions
from .losses import params_at
from .spsa import along, difference_quotients


@transformation()
def delayed_spsa_step(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    n_samples: Size = 1,
    one_sided: bool = False,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    key: Key = 0,
    sampler: Sampler | None = None,
) -> Flow:
    """The step of `mezo`, each call taking that of the call before.

    A transformation to send signals through.

        u_t = -lr_{t-1} (c_{t-1} z_{t-1} + wd theta),    u_1 = 0
        c_t = slope of the loss at theta + u_t along z_t

    with theta the params that `update` is given. The iterates are those of `mezo`, one call later:
    the update can be taken wherever the params are visited next, as `zo2` does block by block. The
    pending step is taken by `flush`.

    Args:
      learning_rate, perturbation_scale, n_samples, one_sided, weight_decay, mask, key, sampler: see
        `optimizers.mezo`.

    Returns:
      The transformation, learning rate included; its state is a counter, a key and the slopes that
      are pending.
    """
    directions = Directions("gaussian", sampler, n_samples)
    measure = partial(difference_quotients, directions=directions, one_sided=one_sided)

    def step(
        g: Signal, params: Signal, value_fn: Signal | None = None, slopes: Signal | None = None
    ) -> Signal:
        root, at = stored_key(key), params_at(g, params)
        pending = delay(partial(_no_slopes, n_samples), name="pending_slopes")
        rate = where(step_count() > 1, scheduled(learning_rate, ahead=-1), 0.0)
        decay = scheduled(weight_decay, ahead=-1)
        estimate = along(pending, at, root, directions, behind=1)
        update = -rate * (estimate >> decay_weights(decay, mask=mask))
        scale = scheduled(perturbation_scale)
        pending << tap("slopes", measure(value_fn, slopes, at + update, root, scale))
        return update

    return flow(step)


def _no_slopes(count: int) -> jax.Array:
    return jnp.zeros(() if count == 1 else (count,))


@checked()
def flush(
    opt: optax.GradientTransformationExtraArgs, params: optax.Params, state: optax.OptState
) -> optax.Params:
    """The params after the step that a delayed optimizer has measured but not taken.

    A function of a state and params.

    Args:
      opt: `mezo(..., delayed_update=True)`.
      params: the params that its last update was applied to.
      state: its state.

    Returns:
      What `mezo` without the delay would have arrived at; for evaluation, or at the end.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mezo
      >>> from gradchain.transforms.zeroth_order import flush
      >>> loss, x = lambda x: jnp.sum(x**2), jnp.ones(2)
      >>> late, opt = mezo(0.1, delayed_update=True), mezo(0.1)
      >>> u, state = late.update(None, late.init(x), x, value_fn=loss)
      >>> abs(u).tolist()
      [0.0, 0.0]
      >>> v, _ = opt.update(None, opt.init(x), x, value_fn=loss)
      >>> bool(jnp.allclose(flush(late, x + u, state), x + v))
      True
    """
    pending = optax.tree_utils.tree_get(state, "pending_slopes")
    if pending is None:
        raise FlowError("flush: the optimizer has no pending step; was it made with a delay?")
    nothing: Any = None
    updates, _ = opt.update(nothing, state, params, slopes=jnp.zeros_like(pending))
    return optax.apply_updates(params, updates)
