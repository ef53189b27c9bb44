"""What enters and leaves the layers of a Flax model: the inputs of Kronecker curvature.

Methods such as `k_fac`, `mkor` and `singd` want, besides the gradient, the inputs of every dense
and convolution layer (`layer_inputs`) and the gradient of the mean loss with respect to their
outputs (`layer_cotangents`). Here they are read off a model as it is, linen or NNX:

    loss_fn = lambda params: loss(model.apply({"params": params}, x), y)
    found = linen_layer_gradients(loss_fn, params)
    updates, state = opt.update(found.grads, state, params, **found.extra)

Both are trees of dicts with the names of the params, cut off at the layers: where the params have
`{"dense": {"kernel": ..., "bias": ...}}`, `layer_inputs` has `{"dense": array}`, or None for what
is no layer. Arrays are

    dense          (..., in) and (..., out), with any leading axes
    convolution    (batch, *positions, patch entries) and (batch, *positions, out)

Where `nn.scan` or a vmap stacks the kernels of several layers, the arrays have that axis in
front, and the optimizer must be told: `k_fac(0.1, layers=linen_layers(loss_fn, params))`.

The model may scan, vmap, rematerialise and share layers. How it works: while the loss is traced,
every layer marks its input and output; in the trace the marks are found wherever they ended up,
zeros are added to the outputs, and the gradient is taken with respect to these, too.

Importing this module does not import Flax; it is needed when a function is called.
"""

from ..transforms.kronecker.layer_places import Layer
from .gradients import LayerGradients
from .linen import linen_layer_gradients, linen_layers
from .nnx import nnx_layer_gradients, nnx_layers

__all__ = [
    "Layer",
    "LayerGradients",
    "linen_layer_gradients",
    "linen_layers",
    "nnx_layer_gradients",
    "nnx_layers",
]
