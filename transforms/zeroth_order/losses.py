"""The loss at points around the params."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ..closures.checks import LossFunction, scalar_closure
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.mapping import map_leaves
from ..notation.needs import missing_input
from ..notation.roots import saturated
from ..notation.signal import Signal
from ..notation.stacks import TINY
from ..notation.values import MISSING, Leaves, either, is_missing, promoting

LossAt = Callable[..., Any]


@checked()
def params_at(g: Signal, params: Signal) -> Signal:
    """The params at the leaves that `g` has, whose entries are not read.

    A function of signals.
    """
    return _params_at(g, params)


def _params_at_of(tree: Leaves, params: Leaves) -> Leaves:
    pairs = zip(tree.values, params.values, strict=True)
    return Leaves((MISSING if is_missing(x) else p for x, p in pairs), params.treedef)


_params_at_of.reads_structure_only = True  # type: ignore[attr-defined]
_params_at = lift_tree(_params_at_of, "params_at", out=lambda c, tree, p: _params_at_of(tree, p))


def base_point(context: Context, params: Leaves) -> Leaves:
    """All the params as closures take them, in working precision at the leaves of `params`.

    A perturbation of a bfloat16 param would mostly vanish in rounding: it is evaluated in float32.
    """
    whole = context.whole
    assert whole is not None
    pairs = zip(params.values, whole.values, strict=True)
    return Leaves((given if is_missing(x) else x for x, given in pairs), whole.treedef)


def moved(point: Leaves, direction: Leaves, step: float | jax.Array) -> Leaves:
    """point + step * direction; where the direction has no leaf, the point.

    Args:
      point: where it starts.
      direction: at some of its leaves.
      step: a number, or a vector of one for each leaf that the direction has.
    """

    def leaf(x: jax.Array, z: jax.Array, own: Any = step) -> jax.Array:
        return x + jnp.asarray(own, jnp.finfo(z.dtype).dtype) * z

    if not jnp.ndim(step):
        return either(map_leaves(leaf, point, direction, most=TINY), point)
    steps = jnp.asarray(step)
    each = map_leaves(lambda own, x, z: leaf(x, z, own), point, direction, stack=steps, most=TINY)
    return either(each, point)


def loss_function(
    context: Context, value_fn: LossFunction | None, point: Leaves, *others: jax.Array
) -> LossAt:
    """The closure as a function of leaves, traced once; its values are float32 at least.

    Args:
      context: of the running node.
      value_fn: the closure.
      point: where it is checked.
      *others: what it takes beside the params, as examples.

    Raises:
      FlowError: if it was not given, or returns no real scalar at the point.
    """
    if value_fn is None:
        raise FlowError(missing_input(context.label, "value_fn"))
    tree = point.tree()
    scalar_closure(
        partial(_at_others, value_fn, others) if others else value_fn, tree, context.label
    )
    from jax.extend.core import jaxpr_as_fun  # brings in a compiler: not at import

    traced = jax.make_jaxpr(value_fn)(tree, *others)
    # Noise that is made in Python, outside jit too, must be the same in all evaluations.
    closure = jaxpr_as_fun(traced)

    def loss(at: Leaves, *others: jax.Array) -> jax.Array:
        (value,) = closure(*jax.tree.leaves((at.tree(), *others)))
        # Of two infinite losses, the difference would be NaN.
        return saturated(
            value.astype(promoting(jnp.promote_types)(value.dtype, context.scalar_dtype))
        )

    return loss


def _at_others(
    value_fn: LossFunction, others: tuple[jax.Array, ...], params: optax.Params
) -> jax.Array:
    return value_fn(params, *others)


@checked()
def check_deterministic(value_fn: Callable[[Any], Any], params: optax.Params) -> None:
    """Raises if a loss function gives two values at one point, as with dropout left on.

    A check of an argument.

    Differences of such losses are noise. Under jit the error appears when the program runs.

    Args:
      value_fn: params -> loss.
      params: where it is evaluated twice.

    Raises:
      ValueError: naming both values.

    Example:
      >>> from gradchain.transforms.zeroth_order import check_deterministic
      >>> losses = iter([0.5, 0.25])
      >>> check_deterministic(lambda params: next(losses), {})
      Traceback (most recent call last):
      ...
      gradchain.transforms.notation.errors.FlowError: value_fn is not deterministic: at the same \
params it returned 0.5 and then 0.25. Turn dropout off, or give both evaluations the same noise
    """
    refuse_noise(value_fn(params), value_fn(params), "value_fn")


def refuse_noise(first: ArrayLike, second: ArrayLike, label: str) -> None:
    """Raises FlowError where two losses differ; inside a compiled program, as it runs."""

    def compare(a: Any, b: Any) -> None:
        same = a == b or (a != a and b != b)
        if not same:
            raise FlowError(
                f"{label} is not deterministic: at the same params it returned {a} and then {b}. "
                "Turn dropout off, or give both evaluations the same noise"
            )

    if any(isinstance(x, jax.core.Tracer) for x in (first, second)):
        jax.debug.callback(compare, first, second)
    else:
        compare(first, second)
