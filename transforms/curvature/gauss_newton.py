"""Gauss-Newton matrices: a sampled diagonal, and exact systems in the space of the outputs."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from ..closures.checks import LossFunction, array_closure, scalar_closure
from ..notation import draws
from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Hyperparameter, Key, Sampler, Size
from ..notation.known import made_once
from ..notation.members import all_axes_of, all_varying
from ..notation.needs import missing_input
from ..notation.roots import log_softmax, root
from ..notation.signal import Signal
from ..notation.steps import step_count
from ..notation.values import Leaves, at_least_float32, working
from ..trees.random import random_key
from ..trees.vector import flat_size, from_vector, to_vector
from .dense import replaced
from .dual import above_rounding, dual_solve, matmul
from .safeguards import tapped_curvature

OutputsLoss = Literal["mse", "ce", "bce"]


@checked()
def gauss_newton_bartlett(
    logits_fn: Callable[..., Any],
    params: optax.Params,
    key: Key | None,
    batch_size: int | None = None,
    labels: jax.Array | None = None,
) -> optax.Updates:
    """An unbiased estimate of the Gauss-Newton diagonal of a mean softmax cross entropy.

    A function of arrays.

        labels_i ~ Categorical(softmax(logits_i))
        estimate = B * (gradient of mean_i CE(logits_i, labels_i))^2

    Args:
      logits_fn: params -> logits (..., C), one row for each of the B positions that enter the
        mean loss; or -> (logits, mask), with a mask (...) of the positions that do.
      params: tree of arrays.
      key: of the draw; None where labels are given.
      batch_size: B; default the number of positions (that the mask has).
      labels: integers (...) in place of the draw.

    Returns:
      A tree like the params, nonnegative, in at least float32.

    References:
      Liu et al. 2023, Sophia (arXiv 2305.14342), section 2.3. Only their code multiplies when the
      diagonal is used, by a constant batch size; that is the same.
    """
    logits, pull, mask = jax.vjp(lambda p: _masked(logits_fn(p)), params, has_aux=True)
    wide = working(logits)
    if labels is None:
        if key is None:
            raise FlowError("gauss_newton_bartlett: key=None needs labels, which it draws")
        labels = draws.categorical(key, wide)
    drawn = jax.nn.one_hot(labels, wide.shape[-1], dtype=wide.dtype)
    residuals = jnp.exp(log_softmax(wide)) - drawn
    count = jnp.asarray(math.prod(wide.shape[:-1]), wide.dtype)
    if mask is not None:
        residuals, count = residuals * mask[..., None], jnp.sum(mask.astype(wide.dtype))
    # B (J^T r / B)^2 = (J^T r / sqrt(B))^2: r / B would underflow in float16
    count = jnp.maximum(count, 1)
    grads = jax.tree.map(working, pull((residuals / root(count)).astype(logits.dtype))[0])
    scale = 1 if batch_size is None else batch_size / count
    return jax.tree.map(lambda g: (scale * g * g).astype(g.dtype), grads)


def _masked(out: jax.Array) -> tuple[Any, Any]:
    return out if isinstance(out, tuple) else (out, None)


@transformation()
def bartlett_diagonal(
    key: Key = 0, batch_size: Size | None = None, sampler: Sampler | None = None
) -> Flow:
    """The Gauss-Newton-Bartlett estimate at the params, whatever comes in.

    A transformation to send signals through.

    Needs `logits_fn`, or a ready `hessian_diag`, which is then passed on; see
    `gauss_newton_bartlett`. Entries that are not finite take the largest finite magnitude of their
    leaf.

    Args:
      key: seed or key of the labels.
      batch_size: number of positions in the mean loss; default that of the logits.
      sampler: `(key, count, params) -> labels` in place of the draw; count is 0 at the first step.
    """

    def step(
        g: Signal,
        params: Signal,
        logits_fn: Signal | None = None,
        hessian_diag: Signal | None = None,
    ) -> Signal:
        estimate = _diagonal(
            logits_fn,
            hessian_diag,
            params,
            random_key(key),
            step_count(),
            batch_size=batch_size,
            sampler=sampler,
        )
        return tapped_curvature(estimate)

    return flow(step)


def _diagonal_of(
    context: Context,
    logits_fn: Any,
    ready: Leaves | None,
    params: Leaves,
    key: jax.Array,
    _: jax.Array,
    batch_size: int | None,
    sampler: Sampler | None,
) -> Leaves:
    if ready is not None:
        return ready.map(working)
    if logits_fn is None:
        raise FlowError(missing_input(context.label, "logits_fn"))
    at = context.whole
    assert at is not None
    array_closure(_only_logits(logits_fn), at.tree(), context.label, "logits_fn", axes=1)
    labels = None if sampler is None else sampler(key, context.step - 1, params.tree())
    estimate = gauss_newton_bartlett(logits_fn, at.tree(), key, batch_size, labels)
    found = Leaves.up_to(at.treedef, estimate)
    return params.map(lambda _, leaf: leaf, found)


def _only_logits(logits_fn: Any) -> Any:
    return (lambda p: _masked(logits_fn(p))[0]) if callable(logits_fn) else logits_fn


_diagonal = lift_tree(
    _diagonal_of,
    "gauss_newton_bartlett",
    context=True,
    out=lambda c, f, d, params, *_: params,
    needs=("logits_fn",),
)


@checked()
def gauss_newton_solve(
    outputs_fn: Signal,
    outputs_loss_fn: Signal,
    params: Signal,
    like: Signal,
    damping: Hyperparameter,
    loss: OutputsLoss = "mse",
) -> Signal:
    """(J^T Q J + damping I)^{-1} J^T r, exactly, through the smaller of two systems.

    A function of signals.

    J is the Jacobian of the outputs in the leaves of `like`, r and Q are the gradient and the
    Hessian of the mean loss in the outputs. With fewer outputs than params, it is the system of the
    Duncan-Guttman form

        J^T (Q J J^T + damping I)^{-1} r,

    else the one above. Their matrices are made of Jacobian products in chunks: J is never stored.

    Args:
      outputs_fn: the input of that name: params -> outputs of the batch.
      outputs_loss_fn: the input of that name: outputs -> mean loss.
      params: the input `params`.
      like: a tree signal.
      damping: number or scalar signal, positive.
      loss: how Q couples the outputs: "mse" and "bce" not at all, "ce" within the last axis.
    """
    return lift_tree(_solved, "gauss_newton_solve", context=True, out=3)(
        outputs_fn, outputs_loss_fn, params, like, damping, loss=loss
    )


CHUNK = 64
"""Rows of a system's matrix that are computed at once."""


def _outputs_of(
    context: Context,
    outputs_fn: Callable[..., jax.Array],
    outputs_loss_fn: LossFunction,
    like: Leaves,
) -> Any:
    """The outputs as a function of the leaves that `like` has, and these leaves."""
    at = context.whole
    assert at is not None
    array_closure(outputs_fn, at.tree(), context.label, "outputs_fn")
    shape = jax.eval_shape(outputs_fn, at.tree())
    scalar_closure(outputs_loss_fn, shape, context.label, "outputs_loss_fn")

    def outputs(parts: Leaves) -> jax.Array:
        return outputs_fn(replaced(at, parts).tree())

    return outputs, like.map(lambda _, param: param, at)


def _solved(
    context: Context,
    outputs_fn: Callable[..., jax.Array],
    outputs_loss_fn: LossFunction,
    params: Leaves,
    like: Leaves,
    damping: float | jax.Array,
    loss: OutputsLoss,
) -> Leaves:
    outputs, parts = _outputs_of(context, outputs_fn, outputs_loss_fn, like)
    fewer_outputs = jax.eval_shape(outputs, parts).size <= flat_size(parts)
    solve = _in_outputs if fewer_outputs else _in_params
    return solve(outputs, outputs_loss_fn, parts, damping, loss)


def _in_outputs(
    outputs: Any,
    loss_fn: LossFunction,
    parts: Leaves,
    damping: float | jax.Array,
    loss: OutputsLoss,
) -> Leaves:
    """J^T (Q J J^T + damping I)^{-1} r."""
    out, pull = jax.vjp(outputs, parts)
    push = jax.linearize(outputs, parts)[1]
    dtype = at_least_float32(out.dtype)

    def backward(vector: jax.Array) -> Leaves:
        return pull(vector.reshape(out.shape).astype(out.dtype))[0]

    def row(vector: jax.Array) -> jax.Array:
        return push(backward(vector)).reshape(-1).astype(dtype)

    (gram,) = made_once(jax.lax.map(row, _unit_vectors(out.size, dtype, out), batch_size=CHUNK))
    slope = jax.grad(loss_fn)
    residuals = slope(out).reshape(-1).astype(dtype)
    coupled = _output_hessian(slope, out, loss, gram)
    damping = above_rounding(damping, coupled)
    return backward(dual_solve(coupled, damping, residuals, symmetric=False)).map(working)


def _in_params(outputs: Any, loss_fn: LossFunction, parts: Leaves, damping: Any, _: str) -> Leaves:
    """(J^T Q J + damping I)^{-1} J^T r."""
    wide = parts.map(working)
    start = to_vector(wide)

    def at(vector: Any) -> Any:
        return outputs(from_vector(vector, parts))

    out, pull = jax.vjp(at, start)
    push = jax.linearize(at, start)[1]
    slope = jax.grad(loss_fn)

    def row(vector: Any) -> Any:
        return pull(jax.jvp(slope, (out,), (push(vector),))[1])[0]

    units = _unit_vectors(start.size, start.dtype, start)
    matrix = jax.lax.map(row, units, batch_size=CHUNK)
    matrix = (matrix + matrix.T) / 2
    damping = above_rounding(damping, matrix)
    return from_vector(dual_solve(matrix, damping, pull(slope(out))[0]), wide)


def _unit_vectors(size: int, dtype: DTypeLike, like: jax.Array) -> jax.Array:
    """All of them as rows, each on every device that has a `like` of its own."""
    return all_varying(jnp.eye(size, dtype=dtype), all_axes_of(like))


def _output_hessian(slope: Any, out: jax.Array, loss: OutputsLoss, matrix: jax.Array) -> jax.Array:
    """The Hessian of the loss in the outputs times a matrix."""

    def product(tangent: jax.Array) -> jax.Array:
        return jax.jvp(slope, (out,), (tangent,))[1]

    if loss != "ce":
        return product(jnp.ones_like(out)).reshape(-1, 1).astype(matrix.dtype) * matrix
    classes = _unit_vectors(out.shape[-1], out.dtype, out)
    columns = jax.vmap(lambda one: product(jnp.broadcast_to(one, out.shape)))(classes)
    blocks = jnp.moveaxis(columns, 0, -1).reshape(-1, len(classes), len(classes))
    rows = matrix.reshape(blocks.shape[0], len(classes), -1)
    return matmul(blocks.astype(matrix.dtype), rows).reshape(matrix.shape)


def _model(
    context: Context,
    outputs_fn: Callable[..., jax.Array],
    outputs_loss_fn: LossFunction,
    params: Leaves,
    update: Leaves,
) -> Any:
    outputs, parts = _outputs_of(context, outputs_fn, outputs_loss_fn, update)
    tangent = update.map(lambda u, p: u.astype(p.dtype), parts)
    out, moved = jax.jvp(outputs, (parts,), (tangent,))
    slope, curved = jax.jvp(jax.grad(outputs_loss_fn), (out,), (moved,))
    return jnp.sum(moved * slope + moved * curved / 2).astype(context.scalar_dtype)


gauss_newton_model_change = lift_tree(
    _model,
    "gauss_newton_model_change",
    context=True,
    out="scalar",
    doc="`gauss_newton_model_change(outputs_fn, outputs_loss_fn, params, update)`, a "
    "scalar signal: what the loss changes by if the outputs are linear and the loss "
    "is quadratic in them.",
)
