"""What several checks of one method share, so that it is compiled once."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from samples import sample
from subjects import gradients, scaled_step_of

ORDINARY = np.float32(1)
slope_of = jax.jit(gradients)


class Trained(NamedTuple):
    """A method that has taken three steps.

    Attributes:
      opt: the method.
      scaled_step: its compiled step, `(params, state, gradient, scale) -> (params, state)`.
      start: the params before the first step.
      begun: the state before the first step.
      params: those after the third.
      state: the state after the third.
    """

    opt: Any
    scaled_step: Callable[..., tuple[Any, Any]]
    start: Any
    begun: Any
    params: Any
    state: Any

    def step(self, params: Any, state: Any) -> tuple[Any, Any]:
        """An ordinary training step."""
        return self.scaled_step(params, state, slope_of(params), ORDINARY)


def divisible_tree() -> dict[str, Any]:
    """Matrices, a vector and a scalar that four times two devices can share."""
    rng = np.random.default_rng(7)
    shapes = {"w": (8, 4), "u": (3, 4), "b": (4,), "s": ()}
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}


@functools.lru_cache(maxsize=1)
def trained(name: str) -> Trained:
    """The method after three steps; the tests of one method run one after the other."""
    opt = sample(name)
    start = divisible_tree()
    begun = opt.init(start)
    one = Trained(opt, jax.jit(scaled_step_of(opt)), start, begun, start, begun)
    for _ in range(3):
        params, state = one.step(one.params, one.state)
        one = one._replace(params=params, state=state)
    return one
