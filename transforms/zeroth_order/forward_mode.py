"""Forward-mode differentiation along random directions: a gradient without a backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from ..closures.checks import LossFunction
from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Key, Sampler, Size
from ..notation.known import each, summed
from ..notation.roots import saturated
from ..notation.signal import Signal
from ..notation.steps import step_count, tap
from ..notation.values import Leaves, is_missing
from ..trees.random import stored_key
from .directions import Directions, Distribution
from .losses import loss_function, params_at
from .spsa import along, known_slopes, with_slopes_shape
from .stages import Activations, Space
from .ties import tied, unfused


@transformation()
def forward_mode_gradient(
    n_samples: Size = 1,
    key: Key = 0,
    sampler: Sampler | None = None,
    normalize: bool = False,
    distribution: Distribution = "gaussian",
    space: Space = "weights",
) -> Flow:
    """A gradient estimate from forward-mode derivatives along random directions.

    A transformation to send signals through.

        d_i = <grad L(theta), v_i>          one forward-mode pass
        g = (1/n) sum_i d_i v_i             v_i / (|v_i|^2 + 1e-16) in place of v_i if normalize

    The limit of `spsa_gradient` for a small perturbation: unbiased, with a variance that grows with
    the number of params. The incoming gradient is not read and may be None. Where the derivative is
    not finite, as that of a loss beyond the numbers of the format, the estimate is 0 and the params
    rest: steps of a loss of slope 1e18 may lead there.

    In the space of activations x_l, of all stages of a `staged_loss` but the last, v has an entry
    for each of theirs:

        d_i = sum_l <dL/dx_l, v_i,l>        one forward-mode pass
        g = dL_n/dtheta + sum_l (dx_l/dtheta)^T (1/n) sum_i d_i v_i,l

    back-propagated inside each stage and never from one to another; the last stage has its true
    gradient. It is unbiased, with a variance that grows with the number of activations. Where the
    stages give a loss per sample, each sample has its own d, at the same cost and with less
    variance.

    Args:
      n_samples: directions at a step; the loss itself is evaluated once for all of them.
      key: seed or key of the directions.
      sampler: `(key, count, params) -> tree` of directions; count is 1 at the first step.
      normalize: project the gradient onto the direction.
      distribution: "gaussian", "rademacher" or "sphere".
      space: what is perturbed, "weights" or "activations"; the latter needs a `staged_loss`, from
        whose activations the sampler's tree, a list, takes its shape, and has no slopes to record.

    Returns:
      The transformation; `update` needs `params` and `value_fn` (params -> loss of this batch),
      differentiable in forward mode, or the recorded `slopes`. Its state is a counter and a key.

    Raises:
      ValueError: for a hyper-parameter out of range, a missing input, or a loss that has only a
        reverse-mode derivative.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.transforms.zeroth_order import forward_mode_gradient
      >>> opt = optax.chain(forward_mode_gradient(n_samples=256), optax.sgd(0.5))
      >>> x = jnp.array([1.0, -2.0])
      >>> u, _ = opt.update(None, opt.init(x), x, value_fn=lambda x: jnp.sum(x**2))
      >>> bool(jnp.all(jnp.sign(u) == jnp.array([-1.0, 1.0])))
      True

    References:
      Baydin et al. 2022, Gradients without Backpropagation (arXiv 2202.08587). Activations: Ren et
      al. 2022, Scaling Forward Gradient With Local Losses (arXiv 2210.03310), whose scheme this is.
    """
    directions = Directions(distribution, sampler, n_samples)

    def step(
        g: Signal, params: Signal, value_fn: Signal | None = None, slopes: Signal | None = None
    ) -> Signal:
        root, at = stored_key(key), params_at(g, params)
        d = _derivatives(value_fn, slopes, at, root, step_count(), directions=directions)
        return along(tap("slopes", d), at, root, directions, normalize=normalize)

    def through_activations(g: Signal, params: Signal, value_fn: Signal) -> Signal:
        at, root = params_at(g, params), stored_key(key)
        how = {"directions": directions, "normalize": normalize}
        return _from_activations(value_fn, at, root, step_count(), **how)

    if space == "activations":
        return flow(through_activations, name="forward_mode_gradient")
    return flow(step)


def _from_activations_of(
    context: Context,
    value_fn: LossFunction | None,
    at: Leaves,
    root: Any,
    _: object,
    directions: Directions,
    normalize: bool,
) -> Leaves:
    found, count = Activations(context, value_fn, at), directions.n_samples

    def weight(inner: Any, norm: Any) -> Any:
        return inner / (norm + 1e-16) if normalize else inner

    def term(sample: Any) -> Leaves:
        guess = directions.draw(context, found.values, root, sample)
        return found.cotangents(guess, weight)

    with named_custom_vjp(context.label):
        total = summed(count, term)
    return found.gradient(total.map(lambda leaf: leaf / count))


_from_activations = lift_tree(_from_activations_of, "from_activations", context=True, out=1)


def _derivatives_of(
    context: Context,
    value_fn: LossFunction | None,
    given: Any,
    at: Leaves,
    root: jax.Array,
    _: jax.Array,
    directions: Directions,
) -> jax.Array:
    count = directions.n_samples
    if given is not None:
        return known_slopes(given, count, context)
    # Drawn apart from those of the update, not kept for it.
    key = tied(root, next(iter(at.present()), jnp.zeros(0)))
    draw = lambda sample: directions.draw(context, at, key, sample)  # noqa: E731
    with named_custom_vjp(context.label):
        pushed = derivative_along(context, value_fn, at, count)
        if count == 1:
            return unfused(pushed(draw(0)))
        return unfused(each(lambda sample: pushed(draw(sample)), jnp.arange(count), beside=at))


_derivatives = with_slopes_shape(_derivatives_of, "jvp")


def derivative_along(
    context: Context, value_fn: LossFunction | None, at: Leaves, count: int = 1
) -> Any:
    """A function direction -> derivative of the loss along it, at the params.

    Args:
      context: what is known.
      value_fn: the closure.
      at: the params at the leaves of the directions.
      count: of how many directions; for more than one the loss is linearised once.
    """
    whole = context.whole
    assert whole is not None
    loss = loss_function(context, value_fn, whole)

    def tangent(direction: Leaves) -> Leaves:
        pairs = zip(direction.values, whole.values, strict=True)
        return Leaves((_tangent(v, p) for v, p in pairs), whole.treedef)

    linear = jax.linearize(loss, whole)[1] if count > 1 else None

    def derivative(direction: Leaves) -> jax.Array:
        v = tangent(direction)
        d = jax.jvp(loss, (whole,), (v,))[1] if linear is None else linear(v)
        return saturated(d.astype(context.scalar_dtype))

    return derivative


@contextmanager
def named_custom_vjp(label: str) -> Iterator[None]:
    """Turns jax's error about a missing forward-mode derivative into one that says what to do."""
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise FlowError(
            f"{label}: value_fn goes through a jax.custom_vjp function, which has no forward-mode "
            "derivative; give it a jax.custom_jvp, or take spsa_gradient"
        ) from error


def _tangent(direction: jax.Array, param: jax.Array) -> jax.Array:
    return jnp.zeros_like(param) if is_missing(direction) else direction.astype(param.dtype)
