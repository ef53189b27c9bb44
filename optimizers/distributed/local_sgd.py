"""Local SGD, and DiLoCo."""

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    NonNegative,
    Period,
    Signal,
    chain,
    decay_weights,
    flow,
    named,
    reset_when,
    scale_by_adam,
    scale_by_learning_rate,
    step_count,
    trace,
    transformation,
    when,
)
from ...transforms.workers import local_round


def nesterov_sgd(
    learning_rate: optax.ScalarOrSchedule = 0.7,
    momentum: Decay = 0.9,
    mu_dtype: DType | None = None,
) -> optax.GradientTransformation:
    """The outer optimizer of DiLoCo."""
    return chain(
        trace(momentum, nesterov=True, dtype=mu_dtype), scale_by_learning_rate(learning_rate)
    )


@method(
    "Stich 2019, Local SGD Converges Fast and Communicates Little",
    arxiv="1805.09767",
    tags=("workers", "momentum", "nesterov", "evaluation-weights"),
    required={"num_local_steps": 4},
)
@transformation()
def local_sgd(
    inner: optax.GradientTransformation,
    num_local_steps: Period,
    outer: optax.GradientTransformation | None = None,
    reset_inner_state: bool = False,
    axis_name: str | None = None,
) -> Flow:
    r"""Each worker steps alone; now and then all go on from where an outer step leads.

    From common params x, worker i of W makes H steps of the inner optimizer, to :math:`y_i`. Then

    .. math::
        D = x - \frac 1 W \sum_i y_i, \qquad x \leftarrow x + \operatorname{outer}(D)

    and all start again from x. D is sent once in a round. Params differ between the workers within
    a round: inside `jax.shard_map` they vary along the axis, under `jax.vmap` they are stacked.

    Args:
      inner: any transformation, each worker's own: its state is not averaged.
      num_local_steps: H.
      outer: what steps along D, as along a gradient, in front of which x are the params; default
        that of DiLoCo, SGD at 0.7 with a Nesterov momentum of 0.9. `optax.sgd(1.0)` averages the
        params. Its schedules count rounds.
      reset_inner_state: the inner state starts anew with each round, its step count and with that
        its schedules too.
      axis_name: the axis along which the workers lie; None: there is one.

    Returns:
      The optimizer; it needs `params`. Its state is that of both, and x, which `eval_params` gives.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from gradchain.optimizers import local_sgd
      >>> opt, x = local_sgd(optax.sgd(0.5), 1, outer=optax.sgd(1.0), axis_name="workers"), 0.0
      >>> step = lambda g: opt.update(g, opt.init(x), x)[0]
      >>> jax.jit(jax.vmap(step, axis_name="workers"))(jnp.array([1.0, 3.0])).tolist()
      [-1.0, -1.0]

    References:
      Stich 2019 (arXiv 1805.09767); Douillard et al. 2023, DiLoCo (arXiv 2311.08105), whose inner
      states are kept over the rounds; Liu et al. 2024, Asynchronous Local-SGD Training for Language
      Modeling (arXiv 2401.09135), in whose code, google-deepmind/asyncdiloco, they start anew.
    """
    outer = nesterov_sgd() if outer is None else outer

    def step(g: Signal, params: Signal) -> Signal:
        if reset_inner_state:
            t = step_count()
            begins = ((t - 1) % num_local_steps == 0) & (t > 1)
            u = g >> reset_when(begins, inner, restart_count=True, name="inner")
        else:
            u = g >> named("inner", inner)
        round_ = local_round(u, params, num_local_steps, axis_name)
        moved = round_.displacement >> when(round_.ends, outer, otherwise=0.0, name="outer")
        return round_.restarted_at(round_.start + moved)

    return flow(step)


@method(
    "Douillard et al. 2023, DiLoCo: Distributed Low-Communication Training of Language Models",
    arxiv="2311.08105",
    tags=("workers", "adam", "nesterov", "decoupled-decay", "evaluation-weights"),
    learning_rate=0.003,
    small_model={"num_local_steps": 4},
)
@transformation()
def diloco(
    learning_rate: optax.ScalarOrSchedule,
    outer_learning_rate: optax.ScalarOrSchedule = 0.7,
    outer_momentum: Decay = 0.9,
    num_local_steps: Period = 500,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    weight_decay: NonNegative = 0.1,
    axis_name: str | None = None,
    mu_dtype: DType | None = None,
) -> Flow:
    """`local_sgd` with AdamW inside and SGD with Nesterov momentum outside.

    Args:
      learning_rate: of AdamW; number or schedule of its steps.
      outer_learning_rate: of the outer step; number or schedule of the rounds.
      outer_momentum: of the outer step.
      mu_dtype: storage of the first moment and of the outer momentum; default at least float32.
      num_local_steps: steps of a round.
      b1, b2: decays of AdamW.
      weight_decay: of AdamW, decoupled.
      axis_name: the axis along which the workers lie; None: there is one.

    Returns:
      The optimizer; it needs `params`, which differ between workers within a round. Its state is
      four buffers of their size: two moments, the outer momentum, and the common params, which
      `eval_params` gives.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for an axis that is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import diloco
      >>> opt, x = diloco(0.1, num_local_steps=1, weight_decay=0.0), jnp.zeros(2)
      >>> u, _ = opt.update(jnp.array([1.0, -2.0]), opt.init(x), x)
      >>> u.round(3).tolist()                                # 0.7 (1 + 0.9) 0.1
      [-0.13300000131130219, 0.13300000131130219]
    """
    adamw = chain(
        scale_by_adam(b1, b2, mu_dtype=mu_dtype),
        decay_weights(weight_decay),
        scale_by_learning_rate(learning_rate),
    )
    outer = nesterov_sgd(outer_learning_rate, outer_momentum, mu_dtype)
    return local_sgd(adamw, num_local_steps, outer, axis_name=axis_name)
