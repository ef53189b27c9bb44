"""Running a method on given gradients in float64, to be compared with a transcription in numpy."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import replay

Tree = dict[str, np.ndarray]


def tree(seed: int = 0, **shapes: tuple[int, ...]) -> Tree:
    """Normal entries, one leaf per shape; by default a matrix, a vector and a scalar."""
    rng = np.random.default_rng(seed)
    shapes = shapes or {"b": (3,), "s": (), "w": (4, 3)}
    return {name: np.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def gradients(steps: int, seed: int = 1, **shapes: tuple[int, ...]) -> list[Tree]:
    """One tree per step; sizes differ from step to step."""
    return [
        {k: v * (0.5 + t % 3) for k, v in tree(seed + 100 * t, **shapes).items()}
        for t in range(steps)
    ]


def run(
    opt: Any,
    params: Tree,
    grads: Iterable[Tree],
    look: Callable[[Any, Any], Any] = lambda state, params: params,
    **extras: Any,
) -> list[Tree]:
    """What `look` sees after every step; extras are stacked along a leading axis of steps."""
    with replay._enable_x64(True):
        opt = optax.with_extra_args_support(opt)
        fed = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *grads)
        start = jax.tree.map(jnp.asarray, params)

        def step(carry: Any, now: Any) -> Any:
            params, state = carry
            grads, extra = now
            updates, state = opt.update(grads, state, params, **extra)
            params = optax.apply_updates(params, updates)
            return (params, state), look(state, params)

        extras = jax.tree.map(jnp.asarray, extras)
        scan = jax.jit(lambda p: jax.lax.scan(step, (p, opt.init(p)), (fed, extras))[1])
        seen = jax.tree.map(np.asarray, scan(start))
    count = len(jax.tree.leaves(seen)[0])
    return [jax.tree.map(lambda x, t=t: x[t], seen) for t in range(count)]


def transcribed(rule: Callable[..., Any], params: Tree, grads: Iterable[Tree]) -> list[Tree]:
    """Runs `rule(t, g, x, memory) -> x` leaf by leaf; memory is a dict of the leaf's own."""
    memories: dict[str, dict[str, Any]] = {name: {} for name in params}
    x, seen = dict(params), []
    for t, grad in enumerate(grads, start=1):
        x = {name: rule(t, grad[name], x[name], memories[name]) for name in x}
        seen.append(x)
    return seen


def assert_close(got: list[Tree], wanted: list[Tree], rtol: float = 1e-9) -> None:
    """Equal after every step, relative to the size of the leaf."""
    assert len(got) == len(wanted)
    for t, (ours, theirs) in enumerate(zip(got, wanted, strict=True), start=1):
        for name in theirs:
            scale = np.max(np.abs(theirs[name]), initial=1e-6)
            np.testing.assert_allclose(
                ours[name], theirs[name], rtol=0, atol=rtol * scale, err_msg=f"{name}, step {t}"
            )


def average(memory: dict[str, Any], name: str, decay: float, x: Any) -> Any:
    """An exponential average in a leaf's memory."""
    memory[name] = decay * memory.get(name, 0.0) + (1 - decay) * x
    return memory[name]
