"""Projection of a gradient onto a guess of it."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..closures.checks import LossFunction
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Key, NonNegative, Sampler
from ..notation.mapping import map_leaves
from ..notation.roots import dot, power_of_two_below, root, saturated, squarable, squared
from ..notation.signal import Signal
from ..notation.stacks import TINY
from ..notation.steps import scheduled, step_count
from ..notation.values import MISSING, Leaves, is_missing
from ..trees.random import stored_key
from .directions import Directions, draw_direction
from .forward_mode import derivative_along, named_custom_vjp
from .losses import params_at
from .stages import Activations, Space

Mode = Literal["per_sample", "batch", "sign"]
Scope = Literal["leaf", "global"]
Guess = Literal["given", "normal", "rademacher"]
Target = Literal["gradient", "value_fn"]
Combine = Callable[[jax.Array, jax.Array], jax.Array]


@transformation()
def project_onto_guess(
    mode: Mode = "per_sample",
    eps: NonNegative = 1e-16,
    scope: Scope = "leaf",
    guess: Guess = "given",
    target: Target = "gradient",
    key: Key = 0,
    sampler: Sampler | None = None,
    space: Space = "weights",
) -> Flow:
    """The part of the gradient that lies along a guess of it.

    A transformation to send signals through.

    With target gradients a and guesses b that have a leading axis of samples:

        per_sample  sum_i <a_i, b_i> / (|b_i|^2 + eps) b_i
        batch       <A, B> / (|B|^2 + eps) B,    A = sum_i a_i, B = sum_i b_i
        sign        sum_i sign(<a_i, b_i>) b_i

    Without that axis there is one sample. The norm is the guess's alone, so the result is never
    longer than the gradient; a guess of zero gives zero.

    Args:
      mode: how samples are treated, see above.
      eps: added to the squared norm of the guess.
      scope: "leaf" takes one inner product per leaf, "global" one over the whole tree.
      guess: "given" takes the extra argument `guess` of `update`, a tree like the gradients (of an
        auxiliary head, say), "normal" and "rademacher" draw it.
      target: "gradient" projects what comes in; "value_fn" takes <a, b> as forward-mode
        derivatives of the loss, one pass per scope: no gradient is needed, and there is one sample.
      key: seed or key of the guesses that are drawn.
      sampler: `(key, count, params) -> tree` of guesses in place of drawn ones; count is 1 at the
        first step.
      space: "activations" takes guesses of the derivatives with respect to what the stages of a
        `staged_loss` hand on, a list like these, needs target "value_fn", and back-propagates
        inside stages only; the last one has its true gradient. Samples are those that have losses
        of their own; "batch" takes one product over all. A scope of "leaf" is one array of
        activations.

    Returns:
      The transformation; the axis of samples is summed away. It keeps a counter and a key for
      guesses that are drawn, else nothing.

    Raises:
      ValueError: for an unknown choice, a missing input, or a guess of other shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.zeroth_order import project_onto_guess
      >>> opt = project_onto_guess()
      >>> a, b = jnp.array([[3.0, 4.0]]), jnp.array([[2.0, 0.0]])
      >>> opt.update(a, opt.init(jnp.zeros(2)), guess=b)[0].tolist()
      [3.0, 0.0]

    References:
      Fournier et al. 2023, Can Forward Gradient Match Backpropagation? (arXiv 2306.06968). The
      paper has no eps; we follow the authors' code, except that a bias keeps its own projection,
      and "sign" is what its name says.
    """
    directions: Directions | None = None
    if guess != "given" or sampler is not None:
        directions = Directions("rademacher" if guess == "rademacher" else "gaussian", sampler, 1)
    project = partial(_projection, mode=mode, scope=scope)

    def drawn(like: Signal) -> Signal:
        assert directions is not None
        return draw_direction(like, stored_key(key), directions)

    def gradient(g: Signal) -> Signal:
        return project(g, drawn(g), None, scheduled(eps))

    def gradient_on_given(g: Signal, guess: Signal) -> Signal:
        return project(g, guess, None, scheduled(eps))

    def forward(g: Signal, params: Signal, value_fn: Signal) -> Signal:
        at = params_at(g, params)
        return project(at, drawn(at), value_fn, scheduled(eps))

    def forward_on_given(g: Signal, params: Signal, value_fn: Signal, guess: Signal) -> Signal:
        return project(params_at(g, params), guess, value_fn, scheduled(eps))

    def activations_on_given(g: Signal, params: Signal, value_fn: Signal, guess: Signal) -> Signal:
        return in_activations(value_fn, params_at(g, params), guess, None, None, scheduled(eps))

    def activations(g: Signal, params: Signal, value_fn: Signal) -> Signal:
        at = params_at(g, params)
        return in_activations(value_fn, at, None, stored_key(key), step_count(), scheduled(eps))

    if space == "activations":
        if target != "value_fn":
            raise FlowError('project_onto_guess: space="activations" needs target="value_fn"')
        in_activations = partial(_in_activations, mode=mode, scope=scope, directions=directions)
        chosen = activations_on_given if directions is None else activations
        return flow(chosen, name="project_onto_guess")
    steps: dict[tuple[str, bool], Callable[..., Signal]] = {
        ("gradient", True): gradient,
        ("gradient", False): gradient_on_given,
        ("value_fn", True): forward,
        ("value_fn", False): forward_on_given,
    }
    return flow(steps[target, directions is not None], name="project_onto_guess")


def _projection_of(
    context: Context,
    a: Leaves,
    b: Leaves,
    value_fn: LossFunction | None,
    eps: float | jax.Array,
    mode: str,
    scope: str,
) -> Leaves:
    if not isinstance(b, Leaves):
        raise FlowError(f"{context.label}: guess must be a tree like the gradients")
    b = _each(saturated, b)
    if value_fn is not None:
        with named_custom_vjp(context.label):
            return _forward(context, a, b, value_fn, eps, mode, scope)
    a, b = (_with_samples(context, tree) for tree in (a, b))
    if mode == "batch":
        a, b = (_each(lambda x: jnp.sum(x, axis=0, keepdims=True), tree) for tree in (a, b))
    units = _units(b, scope)
    short = _each(_divided, b, units)
    inner, norms = (_shared(_each(_dots, x, short), scope) for x in (a, short))

    def along(x: jax.Array, d: jax.Array, n: jax.Array, unit: jax.Array) -> jax.Array:
        return jnp.tensordot(_weight(d, n, eps, mode, unit), x, axes=1)

    return _each(along, b, inner, norms, units)


_each = partial(map_leaves, most=TINY)


_projection = lift_tree(
    _projection_of, "projection", context=True, out=lambda context, *_, **how: _like(context)
)


def _in_activations_of(
    context: Context,
    value_fn: LossFunction | None,
    at: Leaves,
    guess: Any,
    root: Any,
    _: object,
    eps: Any,
    mode: str,
    scope: str,
    directions: Any,
) -> Leaves:
    found = Activations(context, value_fn, at)
    if directions is None:
        guess = _guess_like(context, found.values, guess)
    else:
        guess = directions.draw(context, found.values, root)
    weight = partial(_weight, eps=eps, mode=mode)
    with named_custom_vjp(context.label):
        how = {"per_leaf": scope == "leaf", "as_batch": mode == "batch"}
        cotangents = found.cotangents(guess, weight, **how)
    return found.gradient(cotangents)


_in_activations = lift_tree(_in_activations_of, "in_activations", context=True, out=1)


def _guess_like(context: Context, activations: Leaves, guess: Any) -> Leaves:
    """The given guess at the activations; FlowError where it does not fit."""
    tree = guess.tree() if isinstance(guess, Leaves) else guess
    try:
        given = Leaves.up_to(activations.treedef, tree)
        return activations.map(
            lambda x, b: jnp.broadcast_to(jnp.asarray(b, x.dtype), x.shape), given
        )
    except (TypeError, ValueError) as error:
        raise FlowError(
            f"{context.label}: guess must be a list like the activations: {error}"
        ) from error


def _like(context: Context) -> Leaves:
    assert context.params is not None
    return context.params.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype))


def _forward(
    context: Context,
    at: Leaves,
    b: Leaves,
    value_fn: LossFunction | None,
    eps: Any,
    mode: str,
    scope: str,
) -> Leaves:
    """The projection whose inner products are derivatives of the loss."""
    derivative = derivative_along(context, value_fn, at)
    b = at.map(lambda p, x: x.reshape(p.shape), b)
    units = _units(b.map(lambda x: x[None]), scope).map(lambda unit: unit[0])
    short = b.map(lambda x, unit: x / unit.astype(x.dtype), units)
    if scope == "global":
        whole = derivative(short)
        inner = b.map(lambda x: whole)
    else:
        singles = zip(b.values, _singles(short), strict=True)
        inner = Leaves((x if is_missing(x) else derivative(one) for x, one in singles), b.treedef)
    norms = _shared(short.map(lambda x: _dots(x[None], x[None])[0]), scope)
    return b.map(lambda x, d, n, unit: _weight(d, n, eps, mode, unit) * x, inner, norms, units)


def _singles(tree: Leaves) -> list[Leaves]:
    """The tree with one leaf at a time."""
    rows = range(len(tree))
    return [
        Leaves((x if i == j else MISSING for j, x in enumerate(tree.values)), tree.treedef)
        for i in rows
    ]


def _with_samples(context: Context, tree: Leaves) -> Leaves:
    """Every leaf with a leading axis of samples: of one where the leaf is shaped like the param."""
    if context.params is None:
        return tree
    return _each(lambda x, p: x if x.ndim > p.ndim else x[None], tree, context.params)


def _dots(x: jax.Array, y: jax.Array) -> jax.Array:
    """One inner product for each sample."""
    if x.shape != y.shape:
        raise ValueError(f"the guess has shape {y.shape}, the gradient {x.shape}")
    return dot(x, y, axis=tuple(range(1, x.ndim)))


def _shared(dots: Leaves, scope: str, combine: Combine = jnp.add) -> Leaves:
    if scope == "leaf" or not dots.present():
        return dots
    total = functools.reduce(combine, dots.present())
    return dots.map(lambda _: total)


def _units(guess: Leaves, scope: str) -> Leaves:
    """What a guess is divided by so that its square is a number: of samples or of all their leaves.

    The projection does not ask how long a guess is.
    """

    def largest(x: jax.Array) -> jax.Array:
        size = jnp.abs(jax.lax.stop_gradient(x))
        return jnp.max(size, axis=tuple(range(1, x.ndim)), initial=0)

    return _each(power_of_two_below, _shared(_each(largest, guess), scope, jnp.maximum))


def _divided(x: jax.Array, units: jax.Array) -> jax.Array:
    return x / units.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)


def _weight(
    inner: jax.Array,
    norm: jax.Array,
    eps: float | jax.Array,
    mode: str,
    unit: float | jax.Array = 1.0,
) -> jax.Array:
    """What the guess is multiplied by; product and norm are those of the guess over its unit."""
    if mode == "sign":
        return jnp.sign(inner)
    added = squared(squarable(root(jnp.asarray(eps, norm.dtype)) / unit))
    length = saturated(norm + added)
    empty = length == 0
    share = jnp.where(empty, 0, saturated(inner) / jnp.where(empty, 1, length))
    return (share / unit).astype(norm.dtype)
