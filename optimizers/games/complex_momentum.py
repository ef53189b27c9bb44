"""Momentum with a complex decay."""

import math

import optax

from ...registry import method
from ...transforms import Decay, DType, Flow, Number, chain, scale_by_learning_rate, transformation
from ...transforms.accumulate import complex_trace

PAPER = "Lorraine, Acuna, Vicol & Duvenaud 2021, Complex Momentum for Optimization in Games"
ARXIV = "2102.08431"


@method(PAPER, arxiv=ARXIV, tags=("games", "momentum"), learning_rate=0.05)
@transformation()
def complex_momentum(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay = 0.9,
    phase: Number = math.pi / 8,
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Heavy-ball descent with a complex decay; the direction is that of `complex_trace`.

    Gradients of the far past count with both signs, so that it can neither run away, as momentum
    does in games, nor lose its memory, as negative momentum does. It converges in bilinear games,
    for simultaneous steps of the players and for alternating ones.

    Args:
      learning_rate: number or schedule.
      momentum: modulus of the decay, in [0, 1).
      phase: its argument, in radians; 0 is heavy-ball momentum, pi negative momentum.
      mu_dtype: storage of the first moments; default at least float32.

    Returns:
      The optimizer; its state is twice the size of the params.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import complex_momentum
      >>> opt = complex_momentum(0.5, momentum=0.5, phase=jnp.pi)     # momentum -0.5
      >>> first, state = opt.update(jnp.array([4.0]), opt.init(jnp.zeros(1)))
      >>> second, state = opt.update(jnp.array([4.0]), state)
      >>> first.tolist(), second.tolist()
      ([-2.0], [-1.0])

    References:
      Lorraine, Acuna, Vicol & Duvenaud 2021, Complex Momentum for Optimization in Games (arXiv
      2102.08431). There is no official code.
    """
    return chain(complex_trace(momentum, phase), scale_by_learning_rate(learning_rate))
