"""Several steps of a transformation within one."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.cell import Cell, cell_of
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.known import repeat
from ..notation.needs import missing_input
from ..notation.receiver import Receiver, through
from ..notation.roots import saturated
from ..notation.values import Leaves, is_missing, working

Inputs = Callable[..., Callable[[Any], Mapping[str, Any]]]
"""`(context, *values of the signals) -> (number of the inner step, from 0 on) -> inputs`."""


@checked()
def iterated(
    times: int | Callable[[Context], int],
    inner: optax.GradientTransformation,
    *signals: Any,
    fresh: bool = True,
    inputs: Inputs | None = None,
    needs: tuple[str, ...] = (),
    unrolled: Callable[[Context], bool] = lambda context: False,
    name: str | None = None,
) -> Receiver:
    """Runs a transformation several times in a row, and gives the way that its params went.

    A transformation to send signals through.

        y_0 = x,   y_k = y_{k-1} + inner(g; params y_{k-1}),   out = y_K - x

    It is sent the same signal each time; what it makes of its params is its own affair (see
    `gradient_here`).

    Args:
      times: K, or a function of the running context that gives it.
      inner: any transformation.
      *signals: what `inputs` is given beside the context.
      fresh: its state starts anew in every step of the loop, at the params x; otherwise it is kept.
      inputs: called once, gives the function that makes the inputs of each inner step which are
        other than those of `update`. Where it makes a `value_fn`, the `value` of the inner
        transformation is made by that.
      needs: inputs of `update` that `inputs` reads.
      unrolled: whether the number of the inner step has to be a Python number.
      name: name of its state.
    """
    how = _How(times, fresh, inputs, needs, unrolled)
    return through("iterated", _cell(inner, how), *signals, name=name)


@dataclasses.dataclass(frozen=True)
class _How:
    times: int | Callable[[Context], int]
    fresh: bool
    inputs: Inputs | None
    needs: tuple[str, ...]
    unrolled: Callable[[Context], bool]


def _cell(inner: optax.GradientTransformation, how: _How) -> Cell:
    cell = cell_of(inner)
    made = () if how.inputs is None else ("value_fn", "grad_fn", "value")

    def init(context: Context, value: Leaves, *_: float | jax.Array | Leaves) -> optax.OptState:
        return () if how.fresh else cell.init(context, value)

    def run(
        context: Context, state: Any, value: Leaves, *others: float | jax.Array | Leaves
    ) -> tuple[Leaves, optax.OptState]:
        x = context.given
        if x is None:
            raise FlowError(missing_input(context.label, "params"))
        inputs = how.inputs(context, *others) if how.inputs else lambda _: {}

        def body(i: int | jax.Array, carry: Any) -> Any:
            moved, state = carry
            given = _at(x, moved)
            extra = {**context.extra, **inputs(i)}
            if made and ("value" in cell.needs or context.extra.get("value") is not None):
                extra["value"] = extra["value_fn"](given.tree())
            there = dataclasses.replace(
                context, params=given.map(working), given=given, extra=extra
            )
            step, state = cell.update(there, state, value)
            return moved.map(lambda a, b: saturated(a + b).astype(a.dtype), step), state

        start = value.map(lambda _, p: jnp.zeros_like(working(p)), x)
        first = cell.init(context, _example(context, value)) if how.fresh else state
        moved, last = _repeated(how, context, body, (start, first))
        return moved, state if how.fresh else last

    return Cell(
        cell.name,
        init,
        run,
        needs=_united(("params",), [n for n in cell.needs if n not in made], how.needs),
        children=(inner,),
        stateless=how.fresh or cell.stateless,
        inside=None if how.fresh else (lambda state: (state,)),
        rebuild=lambda children: _cell(children[0], how),
    )


def _at(x: Leaves, moved: Leaves) -> Leaves:
    """All params, those that move where they are by now."""
    pairs = zip(x.values, moved.values, strict=True)
    return Leaves((p if is_missing(by) else _sum(p, by) for p, by in pairs), x.treedef)


def _sum(p: jax.Array, by: jax.Array) -> jax.Array:
    """A param that has moved; what a closure is shown are numbers."""
    return saturated(working(p) + by, p.dtype).astype(p.dtype)


def _repeated(how: _How, context: Context, body: Any, carry: Any) -> Any:
    times = how.times(context) if callable(how.times) else how.times
    if how.unrolled(context):
        for i in range(times):
            carry = body(i, carry)
        return carry
    return repeat(times, body, carry)


def _example(context: Context, value: Leaves) -> Leaves:
    params = context.params_like(value)
    return value.map(jnp.zeros_like) if params is None else params.map(working)


def _united(*names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in names for name in group))
