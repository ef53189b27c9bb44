"""CO2: local steps whose average is used a round later."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    FlowError,
    Length,
    Period,
    Positive,
    Scalar,
    Signal,
    clip,
    delay,
    divide_or_zero,
    flow,
    global_norm,
    lift_tree,
    named,
    scheduled,
    transformation,
    where,
)
from ...transforms.notation.values import Leaves
from ...transforms.workers import local_round

GapPenalty: TypeAlias = float | jax.Array | Literal["relative"] | Callable[..., jax.Array]
"""A number, one that is measured, or a function of (x_t, x_{t-1}, d)."""


@method(
    "Sun et al. 2024, CO2: Efficient Distributed Training with Full Communication-Computation "
    "Overlap",
    arxiv="2401.16265",
    tags=("workers", "momentum", "evaluation-weights"),
    required={"num_local_steps": 4},
)
@transformation()
def co2(
    inner: optax.GradientTransformation,
    num_local_steps: Period,
    outer_learning_rate: optax.ScalarOrSchedule = 1.0,
    outer_momentum: Decay = 0.2,
    gap_penalty: GapPenalty = 1.0,
    clip_threshold: Positive | None = None,
    delay: Length = 1,
    axis_name: str | None = None,
) -> Flow:
    r"""Local steps, and an outer step along the displacement of the round before.

    From common params :math:`x_t`, worker i of W makes H steps of the inner optimizer, to
    :math:`y_i`. While the next round runs, the mean is on its way:

    .. math::
        d_t &= x_t - \frac 1 W \sum_i y_i \\
        m &\leftarrow \operatorname{clip}\bigl(\mu m + d_{t-1} / \Lambda_t, \pm \phi\bigr), \qquad
        x_{t+1} = x_t - \eta m

    The first round ends where it began, as nothing has arrived yet. Params differ between the
    workers within a round: inside `jax.shard_map` they vary along the axis, under `jax.vmap` they
    are stacked.

    Args:
      inner: any transformation, each worker's own.
      num_local_steps: H.
      outer_learning_rate: eta; number, or schedule of the steps.
      outer_momentum: mu.
      gap_penalty: Lambda, a number that makes stale displacements count less; "relative" for
        1 + |x_t - x_{t-1}| / |d|, norms of whole trees; or a function of the trees
        (x_t, x_{t-1}, d) that returns a number.
      clip_threshold: phi, a bound on every entry of m; None: none.
      delay: 1 as above; 0 waits for the mean and uses d_t.
      axis_name: the axis along which the workers lie; None: there is one.

    Returns:
      The optimizer; it needs `params`. Its state is the inner one, the common params, which
      `eval_params` gives, the momentum, with a delay the displacement on its way, and those of the
      round before where the penalty asks for them.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import co2
      >>> opt, x = co2(optax.sgd(0.5), 1, outer_momentum=0.0), jnp.ones(1)
      >>> first, state = opt.update(x, opt.init(x), x)
      >>> second, state = opt.update(x, state, x + first)
      >>> first.tolist(), second.tolist()                    # a round late
      ([0.0], [-0.5])

    References:
      Sun et al. 2024 (arXiv 2401.16265). weigao266/fairscale-CO2 takes a constant penalty and
      discards what it clips; we clip. The delay of one round is our reading of the paper,
      "relative" a form of ours in place of its measured staleness gap.
    """
    check_penalty(gap_penalty)
    if delay not in (0, 1):
        raise FlowError(f"co2: delay={delay!r} must be 0 or 1")

    def step(g: Signal, params: Signal) -> Signal:
        round_ = local_round(g >> named("inner", inner), params, num_local_steps, axis_name)
        x, ends = round_.start, round_.ends
        d = held(round_.displacement, ends, "pending") if delay else round_.displacement
        momentum = kept(d, name="momentum")
        m = scheduled(outer_momentum) * momentum + d / penalty(gap_penalty, x, d, params, ends)
        if clip_threshold is not None:
            bound = scheduled(clip_threshold)
            m = clip(m, -bound, bound)
        momentum << where(ends, m, momentum)
        return round_.restarted_at(x - scheduled(outer_learning_rate) * m)

    return flow(step)


kept = delay
"""The unit delay; within the factory the name is that of an argument."""


def held(new: Signal, ends: Signal, name: str) -> Signal:
    """What was new at the end of the round before."""
    pending = kept(new, name=name)
    pending << where(ends, new, pending)
    return pending


def check_penalty(value: object) -> None:
    """Raises FlowError for what is no penalty."""
    wrong = isinstance(value, str) and value != "relative"
    if wrong or (isinstance(value, int | float) and not value > 0) or value is None:
        raise FlowError(
            f"co2: gap_penalty={value!r} must be a positive number, 'relative', or a function of "
            "(x_t, x_{t-1}, d)"
        )


def penalty(value: Any, x: Signal, d: Signal, params: Signal, ends: Signal) -> Scalar:
    """Lambda of this round."""
    if not (callable(value) or value == "relative"):
        return value
    previous = kept(params, name="previous")
    previous << where(ends, x, previous)
    if not callable(value):
        return 1 + divide_or_zero(global_norm(x - previous), global_norm(d))

    def called(*trees: Leaves) -> jax.Array:
        return value(*(tree.tree() for tree in trees))

    return lift_tree(called, "gap_penalty", out="scalar")(x, previous, d)
