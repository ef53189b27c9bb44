"""Second-order information from a closure: Hessian-vector products and diagonals."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..closures.checks import LossFunction, scalar_closure
from ..notation import draws
from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Key, Sampler, Size
from ..notation.known import summed
from ..notation.needs import missing_input
from ..notation.signal import Signal
from ..notation.steps import step_count
from ..notation.values import Leaves, is_missing, working
from ..trees.random import Distribution, drawn_like, random_key
from .safeguards import tapped_curvature


@checked()
def hessian_vector_product(
    value_fn: Signal | None, params: Signal, vector: Signal, grad_fn: Signal | None = None
) -> Signal:
    """H(params) vector, by forward-over-reverse differentiation of `value_fn`.

    A function of signals.

    Args:
      value_fn: the input of that name: params -> scalar loss.
      params: the input `params`.
      vector: a tree signal like the params.
      grad_fn: the input of that name, params -> gradient, of which the Jacobian is taken instead,
        where it is given.

    Raises:
      ValueError: in update, without either function, or where `value_fn` returns what is no loss.
    """
    return _hvp(value_fn, params, vector, grad_fn)


def _hvp_of(
    context: Context,
    value_fn: LossFunction | None,
    params: Leaves,
    vector: Leaves,
    grad_fn: Callable[[optax.Params], optax.Updates] | None = None,
) -> Leaves:
    at = context.whole
    assert at is not None
    if grad_fn is None:
        if value_fn is None:
            raise FlowError(missing_input(context.label, "value_fn"))
        grad_fn = jax.grad(scalar_closure(value_fn, at.tree(), context.label))
    pairs = zip(vector.values, at.values, strict=True)
    tangent = Leaves((_tangent(v, param) for v, param in pairs), at.treedef)
    product = jax.jvp(grad_fn, (at.tree(),), (tangent.tree(),))[1]
    return vector.map(lambda _, leaf: working(leaf), Leaves.up_to(at.treedef, product))


def _tangent(vector: jax.Array, param: jax.Array) -> jax.Array:
    """The vector at a leaf, zero where it has none."""
    return jnp.zeros_like(param) if is_missing(vector) else vector.astype(param.dtype)


_hvp = lift_tree(
    _hvp_of,
    "hessian_vector_product",
    context=True,
    out=lambda c, f, p, v, _: v,
    needs=("value_fn",),
)


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
      sampler: `(key, count, params) -> tree` of probes, in place of `probe`; count is 0 at the
        first step.

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
    value_fn: LossFunction | None,
    ready: Any,
    params: Leaves,
    fresh: jax.Array,
    _: jax.Array,
    num_samples: int,
    draw: Any,
) -> Leaves:
    if ready is not None:
        return ready.map(working)
    if value_fn is None:
        raise FlowError(missing_input(context.label, "value_fn"))

    def estimate(number: int | jax.Array) -> Leaves:
        key = fresh
        if num_samples > 1:
            key = jnp.where(number == 0, fresh, draws.fold_in(fresh, number))
        u = draw(context, params, key)
        return u.map(lambda a, b: a * b, _hvp_of(context, value_fn, params, u))

    return summed(num_samples, estimate).map(lambda x: x / num_samples)


_diagonal = lift_tree(
    _diagonal_of,
    "hutchinson",
    context=True,
    out=lambda c, f, d, params, *_: params,
    needs=("value_fn",),
)
