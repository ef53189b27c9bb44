"""The interface of bilevel methods, and what they are made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...transforms import FlowError
from ...transforms.notation.values import working

Loss = Callable[[Any, Any], jax.Array]
"""`(upper, lower) -> scalar`."""


class BilevelStepper(NamedTuple):
    """A bilevel method: two pure functions that may be jitted.

    Attributes:
      init: `(upper, lower, ...) -> state`, the variables of both levels as trees.
      step: `(state, upper_loss, lower_loss) -> state`, with losses `loss(upper, lower)` that close
        over the batch of this step; the state's `x` is the upper variable, `y` the lower one.
    """

    init: Callable[..., Any]
    step: Callable[[Any, Loss, Loss], Any]


def at_count(value: Any, count: int | jax.Array) -> Any:
    """A number, or the value of a schedule at the number of steps made before."""
    return value(count) if callable(value) else value


def owned(tree: optax.Params) -> optax.Params:
    """A copy of a tree, whose buffers may be donated."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)


def zeros(tree: optax.Params) -> optax.Params:
    """Zeros like a tree, in at least float32."""
    return jax.tree.map(lambda leaf: jnp.zeros_like(working(leaf)), tree)


def moved(tree: optax.Params, rate: float | jax.Array, direction: optax.Params) -> optax.Params:
    """tree - rate * direction, in the dtypes of the tree."""

    def step(leaf: jax.Array, towards: jax.Array) -> jax.Array:
        wide = working(leaf)
        return (wide - jnp.asarray(rate, wide.dtype) * towards.astype(wide.dtype)).astype(
            leaf.dtype
        )

    return jax.tree.map(step, tree, direction)


def plus(a: optax.Params, b: optax.Params, scale: float | jax.Array = 1.0) -> optax.Params:
    """a + scale * b, leaf by leaf, in the wider dtype of working precision."""

    def add(x: jax.Array, y: jax.Array) -> jax.Array:
        wide = working(y)
        return working(x) + jnp.asarray(scale, wide.dtype) * wide

    return jax.tree.map(add, a, b)


def hessian_product(
    lower_loss: Loss, upper: optax.Params, lower: optax.Params, vector: optax.Params
) -> optax.Params:
    """The Hessian of the lower loss in the lower variable, times a vector."""
    slope = jax.grad(lambda y: lower_loss(upper, y))
    tangent = jax.tree.map(lambda v, y: v.astype(y.dtype), vector, lower)
    return jax.jvp(slope, (lower,), (tangent,))[1]


def mixed_product(
    lower_loss: Loss, upper: optax.Params, lower: optax.Params, vector: optax.Params
) -> optax.Params:
    """The derivative in the upper variable of <gradient of the lower loss in the lower, vector>."""
    slope = lambda x: jax.grad(lower_loss, argnums=1)(x, lower)  # noqa: E731
    _, pull_back = jax.vjp(slope, upper)
    return pull_back(jax.tree.map(lambda v, y: v.astype(y.dtype), vector, lower))[0]


def check_losses(label: str, upper: optax.Params, lower: optax.Params, **losses: Any) -> None:
    """FlowError, by name, for what is no loss `loss(upper, lower)` and what has no gradient."""
    for level, tree in (("upper", upper), ("lower", lower)):
        for leaf in jax.tree.leaves(tree):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise FlowError(
                    f"{label}: {level} must be a tree of real arrays, a leaf is "
                    f"{jnp.result_type(leaf)}"
                )
    for name, loss in losses.items():
        if not callable(loss):
            raise FlowError(f"{label}: {name} must be a function (upper, lower) -> loss, {loss!r}")
        out = jax.eval_shape(loss, upper, lower)
        if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
            raise FlowError(f"{label}: {name} must return a real scalar loss, it returned {out}")
