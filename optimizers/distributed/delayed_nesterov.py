"""Delayed Nesterov momentum, for workers that arrive one by one."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    FlowError,
    NonNegative,
    Period,
    Signal,
    Size,
    chain,
    checked,
    delay,
    flow,
    handed_on,
    scale_by_learning_rate,
    scheduled,
    step_count,
    transformation,
    where,
)


@transformation()
def scale_by_delayed_nesterov(
    momentum: Decay = 0.9, buffer_size: Period = 4, activation: NonNegative = 0.0
) -> Flow:
    r"""A Nesterov momentum that is renewed with every N-th gradient, by the mean of the last N.

    .. math::
        B &\leftarrow B + g_t \\
        m &\leftarrow \mu m + B / N, \quad B \leftarrow 0 \qquad \text{where } t = 0 \bmod N \\
        u &= g_t / N + a_t \mu m, \qquad
        a_t = 1 - c N + c \text{ where } t = 0 \bmod N, \text{ else } c

    With N = 1 it is Nesterov's momentum.

    Args:
      momentum: mu, in [0, 1).
      buffer_size: N, the number of workers.
      activation: c, how much of the momentum takes part in each of the other steps, in [0, 1/N].

    References:
      Liu et al. 2024, Asynchronous Local-SGD Training for Language Modeling (arXiv 2401.09135). The
      authors' code has the baselines alone; utnslab/halos follows the paper's algorithm, and its
      defaults are ours.
    """
    most = 1 / buffer_size if isinstance(buffer_size, int) else 1.0
    if isinstance(activation, int | float) and activation > most + 1e-12:
        raise FlowError(
            f"scale_by_delayed_nesterov: activation={activation} must lie in [0, 1/buffer_size], "
            f"with buffer_size={buffer_size}"
        )

    def step(g: Signal) -> Signal:
        due = step_count() % buffer_size == 0
        mu, c = scheduled(momentum), scheduled(activation)
        buffer, past = delay(g, name="buffer"), delay(g, name="momentum")
        total = buffer + g
        m = past << where(due, mu * past + total / buffer_size, past)
        buffer << where(due, 0.0, total)
        return g / buffer_size + where(due, 1 - c * buffer_size + c, c) * mu * m

    return flow(step)


@method(
    "Liu et al. 2024, Asynchronous Local-SGD Training for Language Modeling",
    arxiv="2401.09135",
    tags=("momentum", "nesterov"),
    learning_rate=0.1,
)
@transformation()
def delayed_nesterov(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay = 0.9,
    buffer_size: Period = 4,
    activation: NonNegative = 0.0,
) -> Flow:
    """The server's step of asynchronous local SGD; the rule is `scale_by_delayed_nesterov`.

    It is fed with one pseudo-gradient, start minus end of one worker's local run, for each worker
    that arrives. `dynamic_local_steps` says how long the workers run.

    Args:
      learning_rate: number or schedule of the arrivals; 0.7 in the paper. Do not divide it by the
        number of workers: the rule does.
      momentum, buffer_size, activation: see `scale_by_delayed_nesterov`.

    Returns:
      The optimizer; its state is two buffers of the params' size and the step count.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import delayed_nesterov
      >>> opt, g = delayed_nesterov(1.0, momentum=0.5, buffer_size=2), jnp.ones(1)
      >>> first, state = opt.update(g, opt.init(g))
      >>> second, state = opt.update(g, state)
      >>> first.tolist(), second.tolist()
      ([-0.5], [-1.0])
    """
    return chain(handed_on(scale_by_delayed_nesterov), scale_by_learning_rate(learning_rate))


@checked()
def dynamic_local_steps(speeds: Sequence[float], num_local_steps: Size) -> tuple[int, ...]:
    """How many local steps each worker makes, so that all arrive at about the same time.

        steps_i = max(1, floor(speed_i / max_j speed_j * num_local_steps))

    Args:
      speeds: of the workers, such as steps per second; positive numbers.
      num_local_steps: those of the fastest one.

    Raises:
      ValueError: for what is not a list of positive numbers.

    Example:
      >>> from gradchain.optimizers import dynamic_local_steps
      >>> dynamic_local_steps([1.0, 2.0, 4.0], 50)
      (12, 25, 50)
    """
    found = np.asarray(speeds, float)
    if found.ndim != 1 or not found.size or not np.all(found > 0) or not np.all(np.isfinite(found)):
        raise FlowError(f"dynamic_local_steps: speeds={speeds!r} must be positive numbers")
    steps = np.floor(found / found.max() * num_local_steps).astype(int)
    return tuple(int(n) for n in np.maximum(steps, 1))


@checked()
def staleness_weight(
    staleness: jax.Array | float, num_workers: Size, method: Literal["constant", "polynomial"]
) -> jax.Array | float:
    """The weight of a pseudo-gradient that arrives late, in the baselines of delayed Nesterov.

        1 / sqrt(num_workers), and for "polynomial" times (1 + staleness)^(-1/2)

    Args:
      staleness: updates of the server since the worker set out.
      num_workers: how many there are.
      method: "constant" or "polynomial".

    Raises:
      ValueError: for another method.

    Example:
      >>> from gradchain.optimizers import staleness_weight
      >>> float(staleness_weight(3, 4, "polynomial"))
      0.25
    """
    late = 1.0 if method == "constant" else jnp.sqrt(1.0 + staleness)
    return 1 / (num_workers**0.5 * late)
