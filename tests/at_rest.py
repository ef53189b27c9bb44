"""Runs beside transcriptions in NumPy, of arguments that every recorded run leaves at rest.

`at_rest.json` names for each such argument (0, None, a switch) the test that moves it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from trajectories import Tree, assert_close

SHAPES: Mapping[str, tuple[int, ...]] = {"w": (4, 3), "u": (3, 5), "b": (3,)}
STEPS, RATE, DECAY = 4, 0.1, 0.3


def draw(seed: int, lead: tuple[int, ...] = (), shapes: Any = SHAPES) -> Tree:
    """Normal entries, one leaf per shape."""
    rng = np.random.default_rng(seed)
    return {k: np.asarray(rng.normal(size=(*lead, *shape))) for k, shape in shapes.items()}


START = draw(0)
GRADS = [draw(1 + t) for t in range(STEPS)]


def walk(
    opt: Any,
    start: Tree = START,
    grads: Iterable[Tree] = GRADS,
    extras: Any = lambda t: {},
    look: Any = lambda state, params: params,
) -> list[Any]:
    """What `look` sees after each step."""
    opt = optax.with_extra_args_support(opt)
    params, state, seen = start, opt.init(start), []
    step = jax.jit(lambda g, s, p, extra: opt.update(g, s, p, **extra))
    for t, g in enumerate(grads):
        updates, state = step(g, state, params, extras(t))
        params = optax.apply_updates(params, updates)
        seen.append(jax.tree.map(np.asarray, look(state, params)))
    return seen


def assert_decay_enters(how: str, name: str, given: Mapping[str, Any], **extra: Any) -> None:
    """A decay is the same as none, with other gradients or with a share taken off the params.

    It enters "in the gradient", "beside it" (of the params before the step) or "after it".
    """
    make = getattr(gradchain.optimizers, name)

    @jax.jit
    def step(opt_state: Any, params: Any, g: Any) -> Any:
        return make(RATE, **given).update(g, opt_state, params, **extra)

    params, state = START, make(RATE, **given).init(START)
    wanted = []
    for g in GRADS:
        fed = g if how != "in the gradient" else {k: g[k] + DECAY * params[k] for k in g}
        updates, state = step(state, params, fed)
        moved = optax.apply_updates(params, updates)
        if how == "beside it":
            moved = {k: x - RATE * DECAY * params[k] for k, x in moved.items()}
        elif how == "after it":
            moved = {k: x * (1 - RATE * DECAY) for k, x in moved.items()}
        params = jax.tree.map(np.asarray, moved)
        wanted.append(params)
    got = walk(make(RATE, weight_decay=DECAY, **given), extras=lambda t: extra)
    assert_close(got, wanted)
    assert not np.allclose(got[-1]["w"], walk(make(RATE, **given), extras=lambda t: extra)[-1]["w"])


def assert_transposes(make: Any) -> None:
    """`make(axis)` works along the first axis as along the last of transposed leaves."""
    turned = [{k: np.transpose(v) for k, v in tree.items()} for tree in (START, *GRADS)]
    found = walk(make(0), turned[0], turned[1:])
    assert_close(walk(make(-1)), [{k: np.transpose(v) for k, v in x.items()} for x in found])


def adam_of(x: Any, gs: Iterable[Any], eps: float, before: bool) -> Iterator[Any]:
    """Adam, eps added before the correction of the second moment or after it."""
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        correction = np.sqrt(1 - 0.95**t)
        root = (np.sqrt(v) + eps) / correction if before else np.sqrt(v) / correction + eps
        yield m / (1 - 0.9**t) / root


def stepping(x: Any, gs: Iterable[Any]) -> list[Any]:
    """Params after each step of Adam with a large eps."""
    out = []
    for u in adam_of(x, gs, 0.3, before=False):
        x = x - RATE * u
        out.append(x)
    return out


# --- losses and slopes ---------------------------------------------------------------------------

SIZES = {k: np.abs(x) + 0.5 for k, x in draw(3).items()}
DIRECTIONS = [draw(60 + t) for t in range(STEPS)]
TABLE = jax.tree.map(lambda *x: np.stack(x[:1] + x), *DIRECTIONS)
"""By the count of updates, which is 1 at the first."""


def loss(params: Any) -> Any:
    """A separable quadratic, of arrays of either kind."""
    return sum((SIZES[k] * x**2).sum() / 2 for k, x in params.items())


def quartic(params: Any) -> Any:
    """Of which the scale of a perturbation shows in two-sided slopes too."""
    return loss(params) + sum((x**4).sum() for x in params.values()) / 50


def recorded(key: Any, count: Any, params: Any) -> Any:
    """A sampler that hands out `DIRECTIONS`."""
    return jax.tree.map(lambda x: jnp.asarray(x)[count], TABLE)


def of_the_loss(opt: Any, loss: Any = loss) -> list[Tree]:
    """Params after each step; the gradient, where it is wanted, is that of the loss."""

    @jax.jit
    def step(state: Any, params: Any) -> Any:
        grads = jax.grad(loss)(params)
        updates, state = opt.update(
            grads, state, params, value_fn=loss, value=loss(params), grad_fn=jax.grad(loss)
        )
        return optax.apply_updates(params, updates), state

    opt = optax.with_extra_args_support(opt)
    params, state, seen = START, opt.init(START), []
    for _ in range(STEPS):
        params, state = step(state, params)
        seen.append(jax.tree.map(np.asarray, params))
    return seen


def shifted(params: Tree, direction: Tree, scale: float) -> Tree:
    """Params moved along a direction."""
    return {k: params[k] + scale * direction[k] for k in params}


def slope(
    params: Tree, direction: Tree, eps: float, one_sided: bool = False, loss: Any = loss
) -> float:
    """The difference of two losses along a direction."""
    ahead = loss(shifted(params, direction, eps))
    if one_sided:
        return float((ahead - loss(params)) / eps)
    return float((ahead - loss(shifted(params, direction, -eps))) / (2 * eps))
