"""Steps in float32 at the edges of the number format beside those in float64, by hand.

    python tests/edges.py              all methods, half an hour
    python tests/edges.py adam lion    those whose names begin so

Tells where the params are another after gradients from 1e-30 to 1e18, at every step or at one among
ordinary ones.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gradchain.catalogue import METHODS
from samples import sample
from subjects import NAMES, gradients, scaled_step_of

SIZES = (1e-30, 1e-16, 1e-8, 1e3, 1e9, 1e18)


def trajectory(
    step: Callable[..., Any], start: Any, state: Any, scales: Any
) -> Iterator[tuple[Any, Any]]:
    """The params and the state after every step.

    The gradients do not depend on the params, which may end anywhere; no entry is above 1, and no
    gradient is a multiple of another.

    Args:
      step: see `scaled_step_of`.
      start: the params before the first step.
      state: the state before the first step.
      scales: what the gradients are multiplied by, step by step.
    """
    params = start
    slope = jax.tree.map(np.asarray, gradients(start))
    for i, scale in enumerate(scales):
        size = (1 + 0.3 * np.sin(3 * i)) / 8
        turned = jax.tree.map(lambda g, i=i: np.roll(g, i), slope)
        gradient = jax.tree.map(lambda g, size=size: (size * g).astype(g.dtype), turned)
        params, state = step(params, state, gradient, np.float32(scale))
        yield params, state


ENDS = np.float32([3e38, -3e38, 1e-38, 0, 1])
"""Numbers of one gradient that no power of ten has in common."""


def at_the_ends(start: Any, turn: int) -> Any:
    """A gradient of the largest numbers of both signs beside small ones, others at each turn."""
    numbers = np.roll(ENDS, turn)
    return jax.tree.map(lambda x: np.resize(numbers, x.shape), start)


def at_the_end(start: Any) -> Any:
    """A gradient of the largest numbers alone."""

    def of_leaf(x: Any) -> Any:
        return np.where(np.sin(3 * np.arange(x.size)) < 0, -3.4e38, 3.4e38).reshape(x.shape)

    return jax.tree.map(lambda x: of_leaf(x).astype(np.float32), start)


FEW = {"w": (8, 4), "u": (3, 4), "b": (4,), "s": ()}
"""Shapes of matrices, a vector and a scalar."""

MANY = {"w": (100, 200), "b": (4,)}
"""Shapes of leaves of which one has so many entries that squares of 1e18 have no sum."""


def last_params(name: str, dtype: Any, scales: Any, shapes: Any = FEW) -> Any:
    """Where a trajectory of the method ends."""
    opt, start = sample(name), start_in(dtype, shapes)
    step = jax.jit(scaled_step_of(opt))
    *_, (params, _) = trajectory(step, start, opt.init(start), scales)
    return params


def start_in(dtype: Any, shapes: Any = FEW) -> Any:
    """Params of these shapes."""
    rng = np.random.default_rng(7)
    return {key: jnp.asarray(rng.normal(size=shape), dtype) for key, shape in shapes.items()}


def differing(name: str, scales: Any, shapes: Any = FEW) -> Iterator[str]:
    """Where float32 and float64 differ by more than rounding; in size, for a method that draws."""
    draws = "key" in inspect.signature(METHODS[name].factory).parameters
    dtypes = (jnp.float32, jnp.float64)
    found, expected = (last_params(name, dtype, scales, shapes) for dtype in dtypes)
    for key, start in start_in(jnp.float64, shapes).items():
        x, y = (np.asarray(tree[key], np.float64) - np.asarray(start) for tree in (found, expected))
        error, size = (np.max(np.abs(z), initial=0) for z in (x - y, y))
        if draws and np.max(np.abs(x), initial=0) <= 100 * size:
            continue
        if not error <= 0.02 * size + 1e-6:
            yield f"{key}: {error:.1e} off at {size:.1e}"


def main(prefixes: list[str]) -> None:
    """Prints a line for each method and each trajectory that ends elsewhere."""
    for name in NAMES:
        if prefixes and not name.startswith(tuple(prefixes)):
            continue
        for size in SIZES:
            for scales in ((1, 1, size, 1), (size,) * 3):
                with jax.enable_x64(True):
                    wrong = list(differing(name, scales))
                if wrong:
                    print(name, scales, wrong, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
