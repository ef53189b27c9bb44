"""Showing a transformation another loss than that of the training loop."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..notation.cell import Cell, cell_of
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.receiver import Receiver, through
from ..notation.roots import balanced, dot, squared
from ..notation.signal import Signal
from ..notation.values import Leaves, is_missing, working
from .checks import LossFunction

OF_PARAMS = ("value_fn", "grad_fn", "logits_fn", "outputs_fn", "proxy_fn", "operator_fn")
"""The inputs that are functions of the params alone."""

Made = Callable[..., Mapping[str, Any]]
"""`(context, *values of the signals) -> inputs by name`."""


@checked()
def at_offset(
    offset: Signal, inner: optax.GradientTransformation, *, name: str | None = None
) -> Receiver:
    """Shows a transformation the loss some way off: `h >> at_offset(offset, inner)`.

    A transformation to send signals through.

    Its closures are those of p -> f(p + offset), and its `value` is the loss there, where
    `value_fn` is given. So whatever evaluates the loss inside does it around the point at which the
    gradient h was taken, while its `params` (what decays) stay those of the loop.

    Args:
      offset: a tree signal like the params. Leaves that it has not are not moved.
      inner: any transformation.
      name: name of its state.
    """

    def moved(context: Context, by: Leaves) -> Mapping[str, Any]:
        def elsewhere(fn: Any) -> Any:
            return lambda params, *rest: fn(_sum(context, params, by).tree(), *rest)

        shown = {name: elsewhere(fn) for name, fn in _given(context, OF_PARAMS).items()}
        several = context.extra.get("value_fns")
        if several is not None:
            shown["value_fns"] = (
                elsewhere(several) if callable(several) else tuple(map(elsewhere, several))
            )
        return shown

    return through("at_offset", with_inputs(inner, moved, ("value",)), offset, name=name)


@checked()
def tilted(
    slope: Signal, inner: optax.GradientTransformation, *, name: str | None = None
) -> Receiver:
    """Shows a transformation the loss plus a linear term: `g + slope >> tilted(slope, inner)`.

    A transformation to send signals through.

        f(p) + <slope, p - params>

    Its `value_fn` and `grad_fn` are those of this loss, whose value at the params is that of f.

    Args:
      slope: a tree signal like the params. Along leaves that it has not, there is none.
      inner: any transformation.
      name: name of its state.
    """

    def changed(context: Context, by: Leaves) -> Mapping[str, Any]:
        made: dict[str, Callable[..., Any]]
        made = {"value_fn": _plus_linear, "grad_fn": _plus_constant}
        given = _given(context, tuple(made))
        return {name: made[name](context, fn, by) for name, fn in given.items()}

    return through("tilted", with_inputs(inner, changed), slope, name=name)


@checked()
def with_inputs(
    inner: optax.GradientTransformation, made: Made, provides: tuple[str, ...] = ()
) -> Cell:
    """The cell that runs a transformation with inputs that are made anew, and the others.

    A function of a transformation.

    Args:
      inner: any transformation.
      made: makes the inputs, of the running `Context` and the further signals of the node. Where it
        makes `value_fn`, the `value` of the inner transformation is made by that.
      provides: the inputs that need not be given for they are made.
    """
    cell = cell_of(inner)

    def init(context: Context, value: Leaves, *_: Leaves) -> optax.OptState:
        return cell.init(context, value)

    def run(context: Context, state: Any, value: Leaves, *others: Leaves) -> tuple[Any, Any]:
        inputs = dict(made(context, *others))
        reads_value = "value" in cell.needs or context.extra.get("value") is not None
        if "value" in provides and "value_fn" in inputs and reads_value:
            assert context.whole is not None
            inputs["value"] = inputs["value_fn"](context.whole.tree())
        shown = dataclasses.replace(context, extra={**context.extra, **inputs})
        return cell.update(shown, state, value)

    def out(context: Context, value: Leaves, *_: Leaves) -> Leaves:
        return cell.out(context, value) if cell.out else value

    return dataclasses.replace(
        cell,
        init=init,
        update=run,
        out=out,
        needs=tuple(name for name in cell.needs if name not in provides),
        children=cell.children or (inner,),
        inside=cell.inside if cell.children else None,
        rebuild=cell.rebuild and (lambda children: with_inputs(children[0], made, provides)),
    )


def _given(context: Context, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: context.extra[name] for name in names if callable(context.extra.get(name))}


def _sum(context: Context, params: optax.Params, by: Leaves) -> Leaves:
    """The params moved where `by` has a leaf, in their own dtype."""

    def moved(param: jax.Array, step: jax.Array) -> jax.Array:
        return param if is_missing(step) else (working(param) + step).astype(param.dtype)

    assert context.whole is not None
    at = Leaves.up_to(context.whole.treedef, params)
    pairs = zip(at.values, by.values, strict=True)
    return Leaves((moved(param, step) for param, step in pairs), at.treedef)


def _plus_linear(context: Context, value_fn: LossFunction, slope: Leaves) -> Any:
    return lambda params: plus(value_fn(params), linear_term(context, slope, params))


@checked()
def linear_term(context: Context, slope: Leaves, params: optax.Params) -> jax.Array:
    """<slope, params - the params of this step>, over the leaves that the slope has.

    A function of params, and of the step that they were met in.
    """
    return _inner(*_met(context, slope, params))


@checked()
def distance_term(context: Context, like: Leaves, params: optax.Params) -> jax.Array:
    """|params - the params of this step|^2 / 2, over the leaves that a signal has.

    A function of params, and of the step that they were met in.
    """
    _, away = _met(context, like, params)
    return balanced([jnp.sum(squared(leaf)) / 2 for leaf in away])


Arrays = tuple[jax.Array, ...]


@jax.custom_jvp
def _inner(slope: Arrays, away: Arrays) -> jax.Array:
    """The inner product; its gradient is the other vector, for which a mesh exchanges nothing."""
    return balanced([dot(c, d) for c, d in zip(slope, away, strict=True)])


@_inner.defjvp
def _inner_jvp(
    primals: tuple[Arrays, Arrays], tangents: tuple[Arrays, Arrays]
) -> tuple[jax.Array, jax.Array]:
    rows = zip(*primals, *tangents, strict=True)
    turned = [jnp.sum(jnp.real(dc.conj() * d) + jnp.real(c.conj() * dd)) for c, d, dc, dd in rows]
    return _inner(*primals), balanced(turned)


def _met(context: Context, leaves: Leaves, params: optax.Params) -> tuple[Arrays, Arrays]:
    """The leaves that there are, and how far each of their params is from that of this step."""
    assert context.whole is not None
    at = Leaves.up_to(context.whole.treedef, params)
    rows = zip(leaves.values, at.values, context.whole.values, strict=True)
    pairs = [(c, working(p) - working(x)) for c, p, x in rows if not is_missing(c)]
    return tuple(c for c, _ in pairs), tuple(away for _, away in pairs)


@checked()
def plus(loss: jax.Array, term: jax.Array) -> jax.Array:
    """A loss and a term, in the dtype of the loss.

    A function of arrays.
    """
    return loss + term.astype(loss.dtype)


def _plus_constant(
    context: Context, grad_fn: Callable[[optax.Params], optax.Updates], slope: Leaves
) -> Any:
    return lambda params: jax.tree.map(
        lambda g, p: g.astype(p.dtype), _sum(context, grad_fn(params), slope).tree(), params
    )
