"""DIFF2: private gradients by their differences."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    Key,
    NonNegative,
    Period,
    Positive,
    Sampler,
    Signal,
    delay,
    draw_like,
    flow,
    global_norm,
    lift_tree,
    scheduled,
    step_count,
    transformation,
    where,
)
from ...transforms.notation import draws
from ...transforms.notation.context import Context
from ...transforms.notation.values import Leaves, working
from ...transforms.trees import random_key
from ...transforms.workers import axis, mean_over
from .examples import clipped_sum, number_of_examples


@method(
    "Murata & Suzuki 2023, DIFF2: Differential Private Optimization via Gradient Differences for "
    "Nonconvex Distributed Learning",
    arxiv="2302.03884",
    tags=("private", "noise", "bounded", "tracked-mean"),
    kind="per_example",
    learning_rate=0.1,
    required={
        "restart_interval": 5,
        "clip_gradient": 1.0,
        "clip_difference": 1.0,
        "noise_gradient": 0.1,
        "noise_difference": 0.1,
    },
)
@transformation()
def diff2(
    learning_rate: optax.ScalarOrSchedule,
    restart_interval: Period,
    clip_gradient: Positive,
    clip_difference: Positive,
    noise_gradient: NonNegative,
    noise_difference: NonNegative,
    key: Key = 0,
    noise_fn: Sampler | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""Adds up private differences of gradients, whose noise shrinks with the steps.

    Client p of P, with the gradients :math:`g_i` of its n examples at the params x and
    :math:`g_i^-` of the same examples at the params before, which are a distance
    :math:`\delta = \|x - x^-\|` away; c clips to a norm over all leaves. In rounds 1, 1 + T, ...:

    .. math::
        v \leftarrow \operatorname{mean}_p \Bigl(
            \frac 1 n \sum_i c(g_i, C_1) + \sigma_1 \xi_p\Bigr)

    and in all others:

    .. math::
        v \leftarrow v + \operatorname{mean}_p \Bigl(
            \frac 1 n \sum_i c(g_i - g_i^-, C_2 \delta) + \sigma_2 \delta \xi_p\Bigr)

    and then :math:`x \leftarrow x - \eta v`. The noise is each client's own, so that its variance
    falls with their number.

    Args:
      learning_rate: eta; number or schedule.
      restart_interval: T.
      clip_gradient: C_1.
      clip_difference: C_2, per unit of distance.
      noise_gradient: sigma_1, a standard deviation; it follows from the budget by an accountant.
      noise_difference: sigma_2, one per unit of distance.
      key: seed or key of the noise; the clients draw different noise from the same.
      noise_fn: `(key, count, params) -> tree` of standard normals in place of the draw, called
        under the axis; count is 0 at the first step.
      axis_name: the axis along which the clients lie; None: there is one.

    Returns:
      The optimizer of stacked gradients of single examples; its state is v, the last params and a
      key. Extra arguments of its update: `previous_grads`, the gradients of the same examples at
      the params before, stacked alike; or `grads_fn`, a function from params to them. In the first
      round of all they say nothing.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for gradients that are not stacked,
        or an axis that is not there.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain.optimizers import diff2
      >>> targets = jnp.array([1.0, 3.0])
      >>> single = jax.grad(lambda w, t: (w - t) ** 2 / 2)
      >>> grads_fn = lambda w: jax.vmap(single, (None, 0))(w, targets)
      >>> opt, w = diff2(0.5, 10, 9.0, 9.0, 0.0, 0.0), jnp.array(0.0)
      >>> state = opt.init(w)
      >>> for _ in range(2):
      ...     updates, state = opt.update(grads_fn(w), state, w, grads_fn=grads_fn)
      ...     w = w + updates
      >>> float(w)
      1.5

    References:
      Murata & Suzuki 2023 (arXiv 2302.03884), its routine of plain descent. There is no official
      code, and this rests on the paper alone, from which the clipping is an experimental device.
    """

    def step(
        g: Signal,
        params: Signal,
        previous_grads: Signal | None = None,
        grads_fn: Signal | None = None,
    ) -> Signal:
        past = delay(params, name="previous_params")
        v = delay(clipped_sum(g, 1.0), name="estimate")
        restarts = (step_count() - 1) % restart_interval == 0
        distance = global_norm(params - past)
        past << params

        before = _gradients_before(g, past, previous_grads, grads_fn)
        n = number_of_examples(g)
        fresh = clipped_sum(g, scheduled(clip_gradient)) / n
        moved = clipped_sum(g - before, scheduled(clip_difference) * distance) / n
        xi = draw_like(fresh, _own_key(key, axis_name), sampler=noise_fn)
        fresh = fresh + scheduled(noise_gradient) * xi
        moved = moved + scheduled(noise_difference) * distance * xi
        sent = mean_over(where(restarts, fresh, moved), axis_name)
        return -scheduled(learning_rate) * (v << where(restarts, sent, v + sent))

    return flow(step)


def _own_key(key: Key, axis_name: str | None) -> Signal:
    """A fresh key for each client."""

    def folded(fresh: jax.Array) -> jax.Array:
        bound = axis.is_bound(axis_name)
        return draws.fold_in(fresh, axis.worker_index(axis_name)) if bound else fresh

    return lift_tree(folded, "own_key", out=0)(random_key(key))


def _gradients_before_of(
    context: Context, g: Leaves, past: Leaves, ready: Leaves | None, grads_fn: Any
) -> Leaves:
    if ready is None and grads_fn is None:
        raise FlowError(
            f"{context.label} needs `previous_grads` in update(..., previous_grads=...), the "
            "gradients of the same examples at the params before, or grads_fn=..."
        )
    if ready is None:
        like = context.given or past
        at = past.map(lambda x, p: x.astype(p.dtype), like)
        ready = Leaves.up_to(g.treedef, grads_fn(at.tree())).map(working)
    if not isinstance(ready, Leaves) or [jnp.shape(x) for x in ready.present()] != [
        x.shape for x in g.present()
    ]:
        raise FlowError(
            f"{context.label}: gradients at the params before must be a tree of the same shapes as "
            "the gradients"
        )
    return ready


_gradients_before = lift_tree(
    _gradients_before_of,
    "gradients_before",
    context=True,
    out=lambda context, g, *_: g,
    needs=("previous_grads",),
)
