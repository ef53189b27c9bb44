"""Runs of a method in float64 beside runs of a transcription of its rule in numpy."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Tree = dict[str, np.ndarray]

STEPS = 9
SHAPES: Mapping[str, tuple[int, ...]] = {"b": (4,), "s": (), "w": (3, 2)}
MASK = {"w": True, "b": False, "s": True}


def falling(count):
    """A schedule that is not constant."""
    return 0.1 * 0.9**count


def rate_at(learning_rate, t):
    """The rate of step t, counted from 1."""
    return learning_rate(t - 1) if callable(learning_rate) else learning_rate


# --- what is fed in ------------------------------------------------------------------------------


def tree(seed: int = 0, **shapes: tuple[int, ...]) -> Tree:
    """Normal entries, one leaf per shape; by default a vector, a scalar and a matrix."""
    rng = np.random.default_rng(seed)
    return {k: np.asarray(rng.normal(size=shape)) for k, shape in (shapes or SHAPES).items()}


def gradients(steps: int, seed: int = 1, **shapes: tuple[int, ...]) -> list[Tree]:
    """One tree per step; sizes differ from step to step."""
    return [
        {k: v * (0.5 + t % 3) for k, v in tree(seed + 100 * t, **shapes).items()}
        for t in range(steps)
    ]


def draws(seed=0, scale=1.0, lead=(), shapes=SHAPES, steps=STEPS):
    """Random params, and gradients for each step, whose leaves may have leading axes."""
    led = {k: (*lead, *shape) for k, shape in shapes.items()}
    grads = gradients(steps, seed + 1, **led)
    return tree(seed, **shapes), [{k: scale * v for k, v in grad.items()} for grad in grads]


def single(tree):
    """The tree in float32."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


# --- ours ----------------------------------------------------------------------------------------


def run(
    opt: Any,
    params: Tree,
    grads: Iterable[Tree],
    look: Callable[[Any, Any], Any] = lambda state, params: params,
    **extras: Any,
) -> list[Any]:
    """What `look` sees after every step; extras are stacked along a leading axis of steps."""
    with jax.enable_x64(True):
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


# --- the transcription ---------------------------------------------------------------------------


def by_leaf(rule, params: Tree, grads: Iterable[Tree], mask=None, **settings) -> list[Tree]:
    """Runs `rule(x, gradients, **settings) -> [x after each step]` on each leaf.

    Leaves outside the mask do not decay.
    """
    grads, runs = list(grads), {}
    for name, x in params.items():
        decays = mask is None or mask[name]
        own = settings if decays else {**settings, "weight_decay": 0.0}
        runs[name] = rule(x, [grad[name] for grad in grads], **own)
    return [{name: path[t] for name, path in runs.items()} for t in range(len(grads))]


def transcribed(rule: Callable[..., Any], params: Tree, grads: Iterable[Tree]) -> list[Tree]:
    """Runs `rule(t, g, x, memory) -> x` leaf by leaf; memory is a dict of the leaf's own."""

    def path(x: Any, gs: list[Any]) -> list[Any]:
        memory: dict[str, Any] = {}
        seen = []
        for t, g in enumerate(gs, start=1):
            x = rule(t, g, x, memory)
            seen.append(x)
        return seen

    return by_leaf(path, params, grads)


def average(memory: dict[str, Any], name: str, decay: float, x: Any) -> Any:
    """An exponential average in a leaf's memory."""
    memory[name] = decay * memory.get(name, 0.0) + (1 - decay) * x
    return memory[name]


# --- side by side --------------------------------------------------------------------------------


def assert_close(got: list[Tree], wanted: list[Tree], rtol: float = 1e-10) -> None:
    """Equal after every step, entry by entry."""
    assert len(got) == len(wanted)
    for t, (ours, theirs) in enumerate(zip(got, wanted, strict=True), start=1):
        assert set(ours) == set(theirs)
        for name in theirs:
            np.testing.assert_allclose(
                ours[name], theirs[name], rtol=rtol, atol=1e-12, err_msg=f"{name}, step {t}"
            )
