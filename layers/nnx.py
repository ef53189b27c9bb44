"""Layers of NNX models."""

from collections.abc import Callable, Sequence
from functools import cache
from types import EllipsisType
from typing import Any, TypeAlias

import jax

from ..transforms import checked
from ..transforms.kronecker.layer_places import Layer
from ..transforms.notation.checks import refusal
from ..transforms.notation.paths import joined
from .gradients import LayerGradients, layer_gradients, layers_of
from .modules import is_plain, is_skipped, mark_conv, mark_dense, mark_general, refuse_unknown

Filter: TypeAlias = Callable[..., Any] | str | bool | Sequence[Any] | EllipsisType | None
"""Which variables, as NNX has it: a class of them, a predicate, several of these."""


@checked()
def nnx_layer_gradients(
    model: Any,
    loss_fn: Callable[[Any], Any],
    *,
    wrt: Filter = None,
    skip: Sequence[str] = (),
    has_aux: bool = False,
) -> LayerGradients:
    """The gradient of a loss of an NNX model, with inputs and cotangents of all layers.

    What the model changes while it runs (batch statistics, random streams) is changed, as by
    `nnx.value_and_grad`.

    Args:
      model: the model.
      loss_fn: model -> mean loss over the batch.
      wrt: which variables are the params; default `nnx.Param`.
      skip: names of modules ("encoder/head") that are left alone.
      has_aux: True when `loss_fn` returns `(loss, anything)`.

    Raises:
      ValueError: see `linen_layer_gradients`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from gradchain.layers import nnx_layer_gradients
      >>> model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
      >>> found = nnx_layer_gradients(model, lambda model: model(jnp.ones((4, 3))).mean())
      >>> found.layer_inputs.shape, found.layer_cotangents.shape
      ((4, 3), (4, 2))
    """
    nnx = _nnx()
    params, rest_of, pure_loss = _functional(model, loss_fn, wrt, skip, has_aux)
    found = layer_gradients(pure_loss, params, has_aux=True)
    aux, rest = found.aux
    rest_of(rest)
    grads = jax.tree.unflatten(
        jax.tree.structure(nnx.state(model, wrt or nnx.Param)), jax.tree.leaves(found.grads)
    )
    return found._replace(grads=grads, aux=aux)


@checked()
def nnx_layers(
    model: Any,
    loss_fn: Callable[[Any], Any],
    *,
    wrt: Filter = None,
    skip: Sequence[str] = (),
    has_aux: bool = False,
) -> dict[str, Layer | None]:
    """The `layers` argument of the optimizers for an NNX model; see `linen_layers`.

    Args:
      model: see `nnx_layer_gradients`; it is not changed.
      loss_fn: likewise.
      wrt: likewise.
      skip: likewise.
      has_aux: likewise.
    """
    params, _, pure_loss = _functional(model, loss_fn, wrt, skip, has_aux)
    return layers_of(pure_loss, params, has_aux=True)


def _functional(
    model: Any, loss_fn: Callable[[Any], Any], wrt: Filter, skip: Sequence[str], has_aux: bool
) -> tuple[Any, Callable[[Any], None], Callable[[Any], Any]]:
    nnx = _nnx()
    is_leaf = jax.tree_util.all_leaves([model])
    if model is None or (is_leaf and not isinstance(model, nnx.Module)):
        raise refusal(f"model={model!r} must be an NNX module")
    chosen = nnx.Param if wrt is None else wrt
    graph, params, rest = nnx.split(model, chosen, ...)
    pure_rest = nnx.as_pure(rest)

    def pure_loss(params: Any) -> Any:
        copy = nnx.merge(graph, params, pure_rest)
        _mark_modules(nnx, copy, skip)
        out = loss_fn(copy)
        loss, aux = out if has_aux else (out, None)
        after = nnx.split(copy, chosen, ...)[2]
        return loss, (aux, jax.tree.leaves(after))

    def rest_of(leaves: list[jax.Array]) -> None:
        nnx.update(model, jax.tree.unflatten(jax.tree.structure(rest), leaves))

    return nnx.as_pure(params), rest_of, pure_loss


def _mark_modules(nnx: Any, model: Any, skip: Sequence[str]) -> None:
    """Gives every layer of this copy of the model a class that marks what goes in and out."""
    kinds = ((nnx.Linear, mark_dense), (nnx.LinearGeneral, mark_general), (nnx.Conv, mark_conv))
    for path, module in nnx.iter_modules(model):
        name = joined(path)
        if is_skipped(name, skip):
            continue
        mark = next((mark for known, mark in kinds if is_plain(module, known)), None)
        if mark is not None:
            base: Any = type(module)
            object.__setattr__(module, "__class__", _marking_class(base, mark, name))
        elif not isinstance(module, nnx.Embed):
            own = {
                key: value[...]
                for key, value in vars(module).items()
                if isinstance(value, nnx.Param) and hasattr(value[...], "ndim")
            }
            refuse_unknown(name, module, own)


@cache
def _marking_class(base: Any, mark: Any, name: str) -> Any:
    def call(self: Any, inputs: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        y = base.__call__(self, inputs, *args, **kwargs)
        return mark(self, name, self.kernel[...], inputs, y)

    return type(base)(base.__name__, (base,), {"__call__": call, "__module__": base.__module__})


def _nnx() -> Any:
    try:
        from flax import nnx
    except ImportError as error:  # pragma: no cover
        raise ImportError("gradchain.layers needs Flax: pip install 'gradchain[flax]'") from error
    return nnx
