"""What several checks of one method share, so that it is compiled once."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from samples import sample
from subjects import step_of


class Trained(NamedTuple):
    """A method that has taken three steps.

    Attributes:
      opt: the method.
      step: its compiled training step, `(params, state) -> (params, state)`.
      start: the params before the first step.
      params: those after the third.
      state: the state after the third.
    """

    opt: Any
    step: Callable[[Any, Any], tuple[Any, Any]]
    start: Any
    params: Any
    state: Any


def divisible_tree() -> dict[str, Any]:
    """Matrices, a vector and a scalar that four times two devices can share."""
    rng = np.random.default_rng(7)
    shapes = {"w": (8, 4), "u": (3, 4), "b": (4,), "s": ()}
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}


@functools.lru_cache(maxsize=1)
def trained(name: str) -> Trained:
    """The method after three steps; the tests of one method run one after the other."""
    opt = sample(name)
    step = jax.jit(step_of(opt))
    start = divisible_tree()
    params, state = start, opt.init(start)
    for _ in range(3):
        params, state = step(params, state)
    return Trained(opt, step, start, params, state)
