"""Changing the momentum of an inner transformation from outside."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.cell import Cell, cell_of
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.hyperparameters import Hyperparameter
from ..notation.layout import make_state
from ..notation.receiver import Receiver, through
from ..notation.signal import Signal
from ..notation.steps import scheduled
from ..notation.values import Leaves

MOMENTUM_STATES = ("mu", "trace", "momentum", "momentum_buffer")
"""Names under which first moments are kept, ours and Optax's."""


@checked()
def pull_back_momentum(
    at: Signal,
    inner: optax.GradientTransformation,
    weight: Hyperparameter | None = None,
    *,
    name: str | None = None,
) -> Receiver:
    """Pulls a momentum back after some steps: `g >> pull_back_momentum(at, inner)`.

    A transformation to send signals through.

    Where `at` holds, each momentum b becomes weight b + (1 - weight) c, with c what it became the
    last time (zero at first), or zero if there is no weight.

    Args:
      at: a boolean scalar signal.
      inner: any transformation that keeps a state named "mu", "trace", "momentum" or
        "momentum_buffer".
      weight: number, schedule or signal, or None to set the momentum to zero.
      name: name of its state.

    Raises:
      FlowError: in `init`, for an inner state without momentum.
    """
    weights = () if weight is None else (scheduled(weight),)
    cell = _pulling(inner, caches=weight is not None)
    return through("pull_back_momentum", cell, at, *weights, name=name)


def _pulling(inner: optax.GradientTransformation, caches: bool) -> Cell:
    cell = cell_of(inner)

    def init(context: Context, value: Leaves, *_: object) -> optax.OptState:
        state = cell.init(context, value)
        momenta = _momenta(state)
        if not jax.tree.leaves(momenta):
            names = ", ".join(MOMENTUM_STATES)
            raise FlowError(f"{context.label}: {cell.name} keeps no momentum (none of {names})")
        if not caches:
            return state
        cached = jax.tree.map(jnp.zeros_like, momenta)
        return make_state("PullBackState", {"inner": state, "cached": cached})

    def run(
        context: Context,
        state: Any,
        value: Leaves,
        at: jax.Array,
        weight: float | jax.Array = 0.0,
    ) -> tuple[Any, Any]:
        out, new = cell.update(context, state.inner if caches else state, value)
        momenta = _momenta(new)
        if not caches:
            return out, _with(new, jax.tree.map(lambda b: jnp.where(at, 0, b), momenta))

        def pulled(b: jax.Array, cached: jax.Array) -> jax.Array:
            w = jnp.asarray(weight, b.real.dtype)
            return jnp.where(at, w * b + (1 - w) * cached, b).astype(b.dtype)

        def kept(b: jax.Array, cached: jax.Array) -> jax.Array:
            return jnp.where(at, b, cached)

        momenta = jax.tree.map(pulled, momenta, state.cached)
        cached = jax.tree.map(kept, momenta, state.cached)
        return out, state._replace(inner=_with(new, momenta), cached=cached)

    def out(context: Context, value: Leaves, *_: object) -> Leaves:
        return cell.out(context, value) if cell.out else value

    return Cell(
        cell.name,
        init,
        run,
        out,
        cell.needs,
        children=(inner,),
        inside=lambda state: (state.inner if caches else state,),
        rebuild=lambda children: _pulling(children[0], caches),
    )


def _momenta(state: Any) -> tuple[dict[str, jax.Array], ...]:
    """The momentum trees in a state, in the order in which they are met."""
    found: list[Any] = []

    def collect(momentum: optax.Params) -> optax.Params:
        found.append(momentum)
        return momentum

    _visit(state, collect)
    return tuple(found)


def _with(state: Any, momenta: tuple[dict[str, jax.Array], ...]) -> Any:
    """The state with other momentum trees."""
    rest = iter(momenta)
    return _visit(state, lambda _: next(rest))


def _visit(state: Any, change: Callable[[Any], Any]) -> Any:
    if hasattr(state, "_fields"):
        return state._replace(
            **{
                name: change(field) if name in MOMENTUM_STATES else _visit(field, change)
                for name, field in zip(state._fields, state, strict=True)
            }
        )
    if isinstance(state, tuple | list):
        return type(state)(_visit(part, change) for part in state)
    if isinstance(state, dict):
        return {name: _visit(part, change) for name, part in state.items()}
    return state
