"""Running transformations in the tests of the notation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": {"c": jnp.array([[0.5, -0.25], [4.0, 1.5]])}}


def gradient(step: int, like: Any = None) -> Any:
    """The gradient of that step: numbers without pattern, the same in every run."""
    like = PARAMS if like is None else like
    leaves, treedef = jax.tree.flatten(like)
    draws = [
        np.random.default_rng([step, i]).normal(size=leaf.shape) for i, leaf in enumerate(leaves)
    ]
    pairs = zip(draws, leaves, strict=True)
    return jax.tree.unflatten(treedef, [jnp.asarray(x, leaf.dtype) for x, leaf in pairs])


def run(opt: Any, steps: int = 3, params: Any = None, **extra: Any) -> tuple[list[Any], Any]:
    """The updates of some steps at fixed params, and the last state."""
    params = PARAMS if params is None else params
    state = opt.init(params)
    update = jax.jit(lambda g, s: opt.update(g, s, params, **extra))
    outs = []
    for step in range(1, steps + 1):
        out, state = update(gradient(step, params), state)
        outs.append(out)
    return outs, state


def once(opt: Any, g: Any, params: Any = None, **extra: Any) -> Any:
    """The update of the first step."""
    params = g if params is None else params
    return opt.update(g, opt.init(params), params, **extra)[0]


def close(a: Any, b: Any, rtol: float = 1e-6, atol: float = 1e-7) -> None:
    """Asserts that two trees agree."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)
