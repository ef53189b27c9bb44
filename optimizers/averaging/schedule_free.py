"""Schedule-free learning: around any optimizer, and in its published forms."""

from collections.abc import Callable
from typing import Annotated

import optax

from ...registry import method
from ...transforms import (
    Constant,
    Decay,
    DType,
    Flow,
    Interval,
    Length,
    Mask,
    NonNegative,
    Number,
    Scalar,
    Signal,
    decay_weights,
    delay,
    divide_or_zero,
    flow,
    handed_on,
    is_neutral,
    maximum,
    minimum,
    scale_by_adam,
    scheduled,
    step_count,
    transformation,
    where,
)
from ...transforms.accumulate import radam_rectification

PAPER = "Defazio et al. 2024, The Road Less Scheduled"
ARXIV = "2405.15682"
STORED = {"state_dtype": "z and x are stored in at least float32"}
Interpolation = Annotated[Constant, Interval(0.0, 1.0, high_open=True)]
"""Where gradients are taken: the evaluation weights, which the state tells, depend on it."""


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("evaluation-weights",),
)
@transformation(synonyms={"base_optimizer": "inner"}, renamed=STORED)
def schedule_free(
    inner: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule = 1.0,
    b1: Interpolation = 0.9,
    weight_lr_power: Number = 2.0,
    r: Number = 0.0,
) -> Flow:
    """Averages the iterates of an optimizer instead of lowering its learning rate.

        z_{t+1} = z_t + inner(grad at y_t)
        w_t = t^r (max of the rates so far)^weight_lr_power,   c_t = w_t / (w_1 + ... + w_t)
        x_{t+1} = (1 - c_t) x_t + c_t z_{t+1}
        y_{t+1} = b1 x_{t+1} + (1 - b1) z_{t+1}

    The params of the training loop are y, where gradients are taken. Evaluate, export and gather
    batch statistics at x: `eval_params(state, params)`. Only z is stored; x follows from y and z
    (with a b1 of exactly 0, where y is z, x is stored).

    Args:
      inner: an optimizer without momentum, learning rate included; b1 takes the place of momentum.
      learning_rate: the rate of `inner`, which weighs the average; any number if it is constant.
      b1: how near to the average gradients are taken, in [0, 1).
      weight_lr_power: exponent of the rate in the weights.
      r: exponent of the step in the weights; 0 and a constant rate give c_t = 1 / t.

    Returns:
      The wrapped optimizer; it needs `params`, and its state is one more copy of them.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from gradchain import eval_params
      >>> from gradchain.optimizers import schedule_free, sgd
      >>> opt = schedule_free(sgd(0.5), b1=0.5)
      >>> y = jnp.array([4.0])
      >>> state = opt.init(y)
      >>> for _ in range(2):                              # loss y^2 / 2
      ...     u, state = opt.update(y, state, y)
      ...     y = optax.apply_updates(y, u)
      >>> y.tolist(), eval_params(state, y).tolist()
      ([1.25], [1.5])

    References:
      Defazio et al. 2024, The Road Less Scheduled (arXiv 2405.15682), and the authors' code, whose
      weights are more general than the paper's 1 / t. `optax.contrib.schedule_free` is the same.
    """

    def step(g: Signal, params: Signal) -> Signal:
        u = g >> inner
        return _averaged(params, lambda z: u, scheduled(learning_rate), b1, r, weight_lr_power)

    return flow(step)


def _averaged(
    y: Signal,
    move: Callable[[Signal], Signal],
    rate: Scalar,
    b1: Interpolation,
    r: Number,
    power: Number,
) -> Signal:
    """One step from y, where z goes by `move(z)` at the given rate."""
    at_z = is_neutral(b1)
    if at_z:
        stored = delay(y, name="x", evaluation=(1.0, 0.0))
        z: Signal = y
    else:
        stored = delay(y, name="z", evaluation=(1 - 1 / b1, 1 / b1))
        z = stored
    max_lr, weight_sum = delay(0.0, name="max_lr"), delay(0.0, name="weight_sum")
    largest = max_lr << maximum(max_lr, rate)
    weight = step_count() ** (1.0 * scheduled(r)) * largest**power
    total = weight_sum << weight_sum + weight
    c = divide_or_zero(weight, total)
    moved = move(z)
    new_z = z + moved
    stored << ((1 - c) * stored + c * new_z if at_z else new_z)
    # b1 x_{t+1} + (1 - b1) z_{t+1} - y_t without the old z, which is overwritten in place
    return c * (new_z - y) + (1 - c) * (1 - b1) * moved


def _warmed(learning_rate: optax.ScalarOrSchedule, warmup_steps: int | None) -> Scalar:
    rate = scheduled(learning_rate)
    return rate * minimum(1.0, step_count() / warmup_steps) if warmup_steps else rate


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("evaluation-weights", "low-memory"),
    learning_rate=0.1,
)
@transformation(renamed=STORED)
def schedule_free_sgd(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    b1: Interpolation = 0.9,
    weight_decay: NonNegative | None = 0.0,
    warmup_steps: Length | None = 0,
    r: Number = 0.0,
    weight_lr_power: Number = 2.0,
    mask: Mask | None = None,
) -> Flow:
    """SGD around which iterates are averaged as in `schedule_free`.

        z_{t+1} = z_t - rate_t (g_t + weight_decay y_t),   rate_t = r min(1, t / warmup_steps)

    Args:
      learning_rate: r; a schedule on top is not meant, and changes the weights of the average.
      b1, r, weight_lr_power: see `schedule_free`.
      weight_decay: decay at y, the params.
      warmup_steps: steps of linear warm-up.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; it needs `params`, and its state is one copy of them. Evaluate at
      `eval_params(state, params)`.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import schedule_free_sgd
      >>> opt = schedule_free_sgd(0.5)
      >>> y = jnp.array([4.0])
      >>> opt.update(y, opt.init(y), y)[0].tolist()
      [-2.0]

    References:
      Defazio et al. 2024, The Road Less Scheduled (arXiv 2405.15682), and the authors' code.
    """

    def step(g: Signal, params: Signal) -> Signal:
        rate = _warmed(learning_rate, warmup_steps)
        u = -rate * (g >> decay_weights(weight_decay, mask=mask))
        return _averaged(params, lambda z: u, rate, b1, r, weight_lr_power)

    return flow(step)


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("evaluation-weights", "adam"),
    learning_rate=0.0025,
)
@transformation(renamed=STORED)
def schedule_free_adamw(
    learning_rate: optax.ScalarOrSchedule = 0.0025,
    b1: Interpolation = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    warmup_steps: Length | None = 0,
    r: Number = 0.0,
    weight_lr_power: Number = 2.0,
    inner_momentum: Decay = 0.0,
    decay_at_z: bool = False,
    mask: Mask | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """AdamW without momentum, around which iterates are averaged as in `schedule_free`.

        v_t = b2 v_{t-1} + (1 - b2) g_t^2
        u_t = g_t / (sqrt(v_t / (1 - b2^t)) + eps) + weight_decay y_t
        z_{t+1} = z_t - rate_t u_t,   rate_t = r min(1, t / warmup_steps)

    Args:
      learning_rate: r; a schedule on top is not meant, and changes the weights of the average.
      b1, r, weight_lr_power: see `schedule_free`.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, after bias correction.
      weight_decay: decay at y, the params.
      warmup_steps: steps of linear warm-up.
      inner_momentum: decay of a debiased momentum in place of g in the numerator.
      decay_at_z: decay at z instead.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; it needs `params`, and its state is twice their size. Evaluate at
      `eval_params(state, params)`.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import schedule_free_adamw
      >>> opt = schedule_free_adamw(0.5)
      >>> y = jnp.array([4.0, -2.0])
      >>> print(opt.update(y, opt.init(y), y)[0].round(3))
      [-0.5  0.5]

    References:
      Defazio et al. 2024, The Road Less Scheduled (arXiv 2405.15682), and the authors' repository,
      which alone has `inner_momentum` and `decay_at_z`.
    """

    direction = handed_on(scale_by_adam, b1=inner_momentum)

    def step(g: Signal, params: Signal) -> Signal:
        rate = _warmed(learning_rate, warmup_steps)
        u = g >> direction

        def move(z: Signal) -> Signal:
            at = z if decay_at_z else params
            return -rate * (u >> decay_weights(weight_decay, mask=mask, at=at))

        return _averaged(params, move, rate, b1, r, weight_lr_power)

    return flow(step)


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("evaluation-weights", "adam", "early-phase"),
    learning_rate=0.02,
)
@transformation()
def schedule_free_radam(
    learning_rate: optax.ScalarOrSchedule = 0.0025,
    b1: Interpolation = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    r: Number = 0.0,
    weight_lr_power: Number = 2.0,
    silent_sgd_phase: bool = True,
    mask: Mask | None = None,
    *,
    nu_dtype: DType | None = None,
) -> Flow:
    """RAdam without momentum, around which iterates are averaged as in `schedule_free`.

    With n_t and r_t of `transforms.accumulate.radam_rectification(b2)`: where n_t > 4 a step of
    `schedule_free_adamw` at the rate r_t times the learning rate, which warms up by itself. Before
    that, the params rest, or take plain gradient steps at the full rate.

    Args:
      learning_rate: a schedule on top is not meant, and changes the weights of the average.
      b1, r, weight_lr_power: see `schedule_free`.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, after bias correction.
      weight_decay: decay at y, the params.
      silent_sgd_phase: rest in the first steps.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      nu_dtype: storage of the second moments; default at least float32.

    Returns:
      The optimizer; it needs `params`, and its state is twice their size. Evaluate at
      `eval_params(state, params)`.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import schedule_free_radam
      >>> opt = schedule_free_radam(0.5, silent_sgd_phase=False)
      >>> y = jnp.array([4.0])
      >>> opt.update(y, opt.init(y), y)[0].tolist()
      [-2.0]

    References:
      Defazio et al. 2024, The Road Less Scheduled (arXiv 2405.15682), and the authors' code. Liu et
      al. 2020 (arXiv 1908.03265) for the rectification.
    """

    direction = handed_on(scale_by_adam, b1=0.0)

    def step(g: Signal, params: Signal) -> Signal:
        length, factor = radam_rectification(b2)
        trusted = length > 4
        waiting = 0.0 if silent_sgd_phase else 1.0
        rate = scheduled(learning_rate) * where(trusted, factor, waiting)
        u = where(trusted, g >> direction, g)
        moved = -rate * (u >> decay_weights(weight_decay, mask=mask))
        return _averaged(params, lambda z: moved, rate, b1, r, weight_lr_power)

    return flow(step)
