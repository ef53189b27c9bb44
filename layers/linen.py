"""Layers of linen modules."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from ..transforms import checked
from ..transforms.kronecker.layer_places import KERNEL, Layer
from ..transforms.notation.paths import joined
from .gradients import LayerGradients, layer_gradients, layers_of
from .modules import is_plain, is_skipped, mark_conv, mark_dense, mark_general, refuse_unknown


@checked()
def linen_layer_gradients(
    loss_fn: Callable[[Any], Any],
    params: optax.Params,
    *,
    skip: Sequence[str] = (),
    has_aux: bool = False,
) -> LayerGradients:
    """The gradient of a loss of linen modules, with inputs and cotangents of all layers.

    Args:
      loss_fn: params -> mean loss over the batch, calling `model.apply`.
      params: the params.
      skip: names of modules, as in the params ("encoder/head"), that are left alone: their
        kernels then follow the plain gradient.
      has_aux: True when `loss_fn` returns `(loss, anything)`.

    Raises:
      ValueError: for a module with a matrix of weights that is neither `Dense`, `DenseGeneral`,
        `Conv` nor `Embed` and is not skipped, or one whose kernel is computed from the params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from gradchain.layers import linen_layer_gradients
      >>> model, x = nn.Dense(2), jnp.ones((4, 3))
      >>> params = model.init(jax.random.key(0), x)["params"]
      >>> found = linen_layer_gradients(lambda p: model.apply({"params": p}, x).mean(), params)
      >>> found.layer_inputs.shape, found.layer_cotangents.shape
      ((4, 3), (4, 2))
    """
    return layer_gradients(_intercepted(loss_fn, skip), params, has_aux)


@checked()
def linen_layers(
    loss_fn: Callable[[Any], Any],
    params: optax.Params,
    *,
    skip: Sequence[str] = (),
    has_aux: bool = False,
) -> dict[str, Layer | None]:
    """The `layers` argument of the optimizers for a loss of linen modules.

    It is needed where layers are stacked by a scan, or kernels have several output axes; it also
    tells matrices that are no layers. Params may be abstract.

    Args:
      loss_fn: see `linen_layer_gradients`.
      params: likewise.
      skip: likewise.
      has_aux: likewise.
    """
    return layers_of(_intercepted(loss_fn, skip), params, has_aux)


def _intercepted(loss_fn: Callable[[Any], Any], skip: Sequence[str]) -> Callable[[Any], Any]:
    nn = _linen()

    kinds = ((nn.Dense, mark_dense), (nn.DenseGeneral, mark_general), (nn.Conv, mark_conv))

    def marking(
        next_fun: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], context: Any
    ) -> Any:
        y = next_fun(*args, **kwargs)
        module = context.module
        name = joined(module.path)
        if context.method_name != "__call__" or is_skipped(name, skip):
            return y
        for known, mark in kinds:
            if is_plain(module, known):
                return mark(module, name, module.get_variable("params", KERNEL), args[0], y)
        own = module.variables.get("params", {}) if module.scope is not None else {}
        if not isinstance(module, nn.Embed):
            refuse_unknown(name, module, own)
        return y

    def marked(params: optax.Params) -> jax.Array:
        with nn.intercept_methods(marking):
            return loss_fn(params)

    return marked


def _linen() -> Any:
    try:
        from flax import linen
    except ImportError as error:  # pragma: no cover
        raise ImportError("gradchain.layers needs Flax: pip install 'gradchain[flax]'") from error
    return linen
