"""Fish: the gradients of several domains are matched, one after another."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    Positive,
    Signal,
    Size,
    chain,
    flow,
    lift_tree,
    scheduled,
    transformation,
)
from ...transforms.closures import gradient_here
from ...transforms.control import iterated
from ...transforms.notation.context import Context


@method(
    "Shi et al. 2022, Gradient Matching for Domain Generalization",
    arxiv="2104.09937",
    tags=("closure", "several-losses"),
    learning_rate=3e-3,
    small_model={"meta_learning_rate": 2.0, "meta_steps": 2},
)
@transformation()
def fish(
    inner: optax.GradientTransformation,
    meta_learning_rate: Positive = 0.01,
    meta_steps: Size | None = None,
    reload_inner_state: bool = True,
) -> Flow:
    r"""Visits the domains one after another, then goes a part of that way.

    .. math::
        y_0 &= x_t, \qquad y_i = y_{i-1} + \mathrm{inner}(\nabla f_i(y_{i-1})), \quad i = 1..S \\
        x_{t+1} &= x_t + \frac{\epsilon}{S} (y_S - x_t)

    In the second order of the inner rate this goes down the mean loss and up the inner products of
    the domains' gradients: what one domain learns is to hold in the others. The incoming gradients
    are not used. It costs S gradients.

    Args:
      inner: any optimizer.
      meta_learning_rate: epsilon; number or schedule. S is the whole way.
      meta_steps: S; default all of `value_fns`.
      reload_inner_state: the inner state goes on from step to step; otherwise it starts anew.

    Returns:
      The optimizer; it needs `params` and `value_fns`: a sequence of losses params -> loss, of the
      domains in the order in which they are visited, or a function (params, i) -> loss of the i-th
      of them, from 0 on, with `meta_steps`.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, without `value_fns`, or fewer than
        `meta_steps`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import fish, sgd
      >>> opt, x = fish(sgd(0.5), meta_learning_rate=1.0), jnp.array([4.0])
      >>> losses = (lambda x: jnp.sum(x**2) / 2, lambda x: jnp.sum((x - 6.0) ** 2) / 2)
      >>> opt.update(x, opt.init(x), x, value_fns=losses)[0].tolist()       # to 2, then to 4
      [0.0]

    References:
      Shi et al. 2022, Gradient Matching for Domain Generalization (arXiv 2104.09937). The paper
      goes epsilon (y_S - x); the authors' code divides by S, as ours.
    """
    local = chain(gradient_here(), inner)

    def step(g: Signal, params: Signal, value_fns: Signal) -> Signal:
        way = g >> iterated(
            lambda context: _number(context.extra["value_fns"], meta_steps),
            local,
            fresh=not reload_inner_state,
            inputs=_domain,
            needs=("value_fns",),
            unrolled=lambda context: not callable(context.extra["value_fns"]),
            name="inner",
        )
        return scheduled(meta_learning_rate) / _visited(value_fns, meta_steps=meta_steps) * way

    return flow(step)


def _number(value_fns: Any, meta_steps: int | None) -> int:
    if callable(value_fns):
        if meta_steps is None:
            raise FlowError("fish: a function value_fns(params, i) needs meta_steps")
        return meta_steps
    found = len(value_fns)
    if not found or (meta_steps is not None and found < meta_steps):
        raise FlowError(f"fish: value_fns are {found} losses, it needs {meta_steps or 1}")
    return meta_steps or found


_visited = lift_tree(
    lambda value_fns, meta_steps: jnp.asarray(_number(value_fns, meta_steps), jnp.int32),
    "domains",
    out="scalar",
)


def _domain(context: Context) -> Callable[[Any], Mapping[str, Any]]:
    """The closure of the domain of each inner step."""
    value_fns = context.extra["value_fns"]

    def inputs(i: optax.Params) -> Mapping[str, Any]:
        loss = (lambda params: value_fns(params, i)) if callable(value_fns) else value_fns[i]
        return {"value_fn": loss, "grad_fn": None}

    return inputs
