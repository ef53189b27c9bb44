"""Second-order information from a closure: Hessian-vector products and diagonals."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Key, Sampler, Size
from ..notation.needs import missing_input
from ..notation.signal import Signal
from ..notation.steps import step_count
from ..notation.values import Leaves, is_missing, working
from ..trees.random import Distribution, drawn_like, random_key
from .safeguards import tapped_curvature


def hessian_vector_product(value_fn: Signal, params: Signal, vector: Signal) -> Signal:
    """H(params) vector, by forward-over-reverse differentiation of `value_fn`.

    A function of signals.

    Args:
      value_fn: the input of that name: params -> scalar loss.
      params: the input `params`.
      vector: a tree signal like the params.
    """
    return _hvp(value_fn, params, vector)


def _hvp_of(context: Context, value_fn: Any, params: Leaves, vector: Leaves) -> Leaves:
    at = context.whole
    assert at is not None
    value_fn = scalar_closure(value_fn, at.tree(), context.label)
    pairs = zip(vector.values, at.values, strict=True)
    tangent = Leaves((_tangent(v, param) for v, param in pairs), at.treedef)
    product = jax.jvp(jax.grad(value_fn), (at.tree(),), (tangent.tree(),))[1]
    return vector.map(lambda _, leaf: working(leaf), Leaves.up_to(at.treedef, product))


def _tangent(vector: Any, param: Any) -> Any:
    """The vector at a leaf, zero where it has none."""
    return jnp.zeros_like(param) if is_missing(vector) else vector.astype(param.dtype)


_hvp = lift_tree(_hvp_of, "hessian_vector_product", context=True, out=lambda c, f, p, v: v)


def scalar_closure(value_fn: Any, params: Any, label: str, name: str = "value_fn") -> Any:
    """The closure itself, if it can be called and returns a real scalar; FlowError otherwise."""
    if not callable(value_fn):
        raise FlowError(f"{label}: {name} must be a function that returns a loss, not {value_fn!r}")
    out = jax.eval_shape(value_fn, params)
    if not hasattr(out, "shape") or out.shape != ():
        got = getattr(out, "shape", type(out).__name__)
        raise FlowError(f"{label}: {name} must return a scalar loss, it returned {got}")
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise FlowError(f"{label}: {name} must return a real loss, it returned {out.dtype}")
    return value_fn


def array_closure(fn: Any, params: Any, label: str, name: str, axes: int = 0) -> Any:
    """The closure itself, if it can be called and returns one real array; FlowError otherwise."""
    if not callable(fn):
        raise FlowError(f"{label}: {name} must be a function of the params, not {fn!r}")
    out = jax.eval_shape(fn, params)
    dtype = getattr(out, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or len(out.shape) < axes:
        got = type(out).__name__ if dtype is None else f"{dtype}{out.shape}"
        shape = f" of at least {axes} dimensions" if axes else ""
        raise FlowError(f"{label}: {name} must return one real array{shape}, it returned {got}")
    return fn


def gradient(value_fn: Signal | None, at: Signal, ready: Signal | None = None) -> Signal:
    """The gradient of the loss of this batch at other params, as a tree signal.

    A function of signals.

    Args:
      value_fn: the input of that name.
      at: a tree signal like the params.
      ready: an optional input, which is taken instead if it is given.
    """
    return _gradient(value_fn, at, ready)


def _gradient_of(context: Context, value_fn: Any, at: Leaves, ready: Any) -> Leaves:
    if ready is not None:
        return ready
    if value_fn is None:
        raise FlowError(missing_input(context.label, "value_fn"))
    given = context.whole
    assert given is not None
    pairs = zip(at.values, given.values, strict=True)
    point = Leaves((p if is_missing(x) else x.astype(p.dtype) for x, p in pairs), given.treedef)
    value_fn = scalar_closure(value_fn, point.tree(), context.label)
    grads = jax.grad(value_fn)(point.tree())
    return at.map(lambda _, g: working(jnp.conj(g)), Leaves.up_to(given.treedef, grads))


_gradient = lift_tree(_gradient_of, "gradient", context=True, out=1, needs=("value_fn",))


@transformation()
def hutchinson(
    key: Key = 0,
    num_samples: Size = 1,
    probe: Distribution = "rademacher",
    sampler: Sampler | None = None,
) -> Flow:
    """Hutchinson's estimate of the Hessian diagonal at the params, whatever comes in.

    A transformation to send signals through.

        h = mean over samples of u * (H u)

    Needs `value_fn`, or a ready `hessian_diag`, which is then passed on. Entries that are not
    finite take the largest finite magnitude of their leaf.

    Args:
      key: seed or key of the probes.
      num_samples: probes per estimate.
      probe: "rademacher" (lower variance, exact for diagonal Hessians) or "gaussian".
      sampler: `(key, count, params) -> tree` of probes, in place of `probe`.

    References:
      Bekas, Kokiopoulou & Saad 2007, An estimator for the diagonal of a matrix.
    """

    def step(
        g: Signal,
        params: Signal,
        value_fn: Signal | None = None,
        hessian_diag: Signal | None = None,
    ) -> Signal:
        estimate = _diagonal(
            value_fn,
            hessian_diag,
            params,
            random_key(key),
            step_count(),
            num_samples=num_samples,
            draw=partial(drawn_like, distribution=probe, sampler=sampler),
        )
        return tapped_curvature(estimate)

    return flow(step)


def _diagonal_of(
    context: Context,
    value_fn: Any,
    ready: Any,
    params: Leaves,
    fresh: Any,
    _: Any,
    num_samples: int,
    draw: Any,
) -> Leaves:
    if ready is not None:
        return ready.map(working)
    if value_fn is None:
        raise FlowError(missing_input(context.label, "value_fn"))

    def estimate(key: Any) -> Leaves:
        u = draw(context, params, key)
        return u.map(lambda a, b: a * b, _hvp_of(context, value_fn, params, u))

    def add(total: Leaves, i: Any) -> tuple[Leaves, None]:
        return total.map(lambda a, b: a + b, estimate(jax.random.fold_in(fresh, i))), None

    total = estimate(fresh)
    if num_samples > 1:
        total = jax.lax.scan(add, total, jnp.arange(1, num_samples))[0]
    return total.map(lambda x: x / num_samples)


_diagonal = lift_tree(
    _diagonal_of,
    "hutchinson",
    context=True,
    out=lambda c, f, d, params, *_: params,
    needs=("value_fn",),
)
