"""Width multipliers of the maximal update parametrisation (muP)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from ..notation.checks import checked
from ..notation.errors import FlowError
from ..notation.values import Leaves

BaseShapes = optax.Params | Callable[[optax.Params], optax.Params]
"""Tree of the shapes of the base (narrow) model, or a function from the params to it."""


class Width(NamedTuple):
    """How a leaf grows with the width of the model.

    Attributes:
      kind: "matrix" (two dimensions differ from the base model), "vector" (one), "scalar" (none).
      multiplier: size over base size of the grown fan-in of a matrix, of the one grown dimension
        of a vector; 1 for a scalar.
      is_output: True for a vector whose grown dimension is its fan-in: a readout layer.
    """

    kind: str
    multiplier: float
    is_output: bool = False


def widths(params: optax.Params, base_shapes: BaseShapes, fan_in_axis: int = -1) -> optax.Params:
    """Tree of the `Width` of each leaf; see `mup_width_multipliers` for the arguments."""
    treedef: jax.tree_util.PyTreeDef
    leaves, treedef = jax.tree.flatten(params)
    shapes = base_shapes(params) if callable(base_shapes) else base_shapes
    bases = Leaves.given(treedef, shapes, "base_shapes").values
    found = [
        _width(np.shape(x), _shape(b), fan_in_axis) for x, b in zip(leaves, bases, strict=True)
    ]
    return treedef.unflatten(found)


def _shape(base: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(getattr(base, "shape", base))


def _width(shape: tuple[int, ...], base: tuple[int, ...], fan_in_axis: int) -> Width:
    if len(shape) != len(base):
        raise FlowError(f"base_shapes: a leaf of shape {shape} has base shape {base}")
    grown = [axis for axis, (n, b) in enumerate(zip(shape, base, strict=True)) if n != b]
    if len(grown) > 2:
        raise FlowError(
            f"base_shapes: more than two dimensions of shape {shape} differ from the base {base}"
        )
    if not grown:
        return Width("scalar", 1.0)
    axis = grown[fan_in_axis] if len(grown) == 2 else grown[0]
    multiplier = shape[axis] / base[axis]
    if len(grown) == 2:
        return Width("matrix", multiplier)
    is_output = len(shape) > 1 and axis == fan_in_axis % len(shape)
    return Width("vector", multiplier, is_output)


@checked()
def mup_width_multipliers(
    params: optax.Params, base_shapes: BaseShapes, fan_in_axis: int = -1
) -> optax.Params:
    """How each leaf grows with the width of the model.

    A function of params.

    A dimension has grown where it differs from that of the base model; one that happens to equal
    it counts as finite.

    Args:
      params: the params, or their shapes (`jax.eval_shape`).
      base_shapes: tree of the leaf shapes of the base (narrow) model, or a function from the
        params to it.
      fan_in_axis: which of the two grown dimensions of a matrix is the fan-in: -1, the last, in
        the layout (out, in); -2 in that of Flax kernels, (in, out).

    Returns:
      Tree of `(kind, multiplier)`; kind is "matrix", "vector" or "scalar".

    Raises:
      ValueError: if a leaf has more than two grown dimensions.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.step_size import mup_width_multipliers
      >>> params = {"hidden": jnp.zeros((64, 32)), "bias": jnp.zeros(64), "scale": jnp.zeros(())}
      >>> base = {"hidden": (16, 16), "bias": (16,), "scale": ()}
      >>> mup_width_multipliers(params, base)
      {'bias': ('vector', 4.0), 'hidden': ('matrix', 2.0), 'scale': ('scalar', 1.0)}
    """
    found = widths(params, base_shapes, fan_in_axis)
    return jax.tree.map(lambda w: (w.kind, w.multiplier), found, is_leaf=_is_width)


@checked()
def mup_init_scale(params: optax.Params, base_shapes: BaseShapes, fan_in_axis: int = -1) -> Any:
    """Factors on the initial weights that carry the base model's standard deviations over.

    A function of params.

    Hidden matrices shrink with the root of their fan-in, multiplier^(-1/2); inputs, readouts and
    biases keep the scale of the base model.

    Args:
      params, base_shapes, fan_in_axis: see `mup_width_multipliers`.

    Returns:
      Tree of floats: multiply weights that were drawn with the base model's standard deviations.
    """
    return jax.tree.map(
        lambda w: w.multiplier**-0.5 if w.kind == "matrix" else 1.0,
        widths(params, base_shapes, fan_in_axis),
        is_leaf=_is_width,
    )


@checked()
def mup_readout_multiplier(width_mult: float, output_mult: float = 1.0) -> float:
    """What the output of the readout layer is multiplied by: output_mult / width_mult.

    A function of numbers.
    """
    return output_mult / width_mult


def _is_width(node: object) -> bool:
    return isinstance(node, Width)
