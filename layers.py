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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from .transforms.kronecker.layers import BIAS, KERNEL, TABLE, Layer, layer_name, plain_path
from .transforms.notation.errors import FlowError

__all__ = [
    "Layer",
    "LayerGradients",
    "linen_layer_gradients",
    "linen_layers",
    "nnx_layer_gradients",
    "nnx_layers",
]


class LayerGradients(NamedTuple):
    """A loss, its gradient, and what entered and left the layers.

    Attributes:
      value: the loss.
      grads: its gradient, shaped like the params.
      layer_inputs: tree of layer inputs.
      layer_cotangents: tree of the gradients of the loss with respect to layer outputs.
      aux: what else the loss function returned.
    """

    value: Any
    grads: Any
    layer_inputs: Any
    layer_cotangents: Any
    aux: Any = None

    @property
    def extra(self) -> dict[str, Any]:
        """The keyword arguments for the optimizer's `update`."""
        return {"layer_inputs": self.layer_inputs, "layer_cotangents": self.layer_cotangents}


# --- linen ---------------------------------------------------------------------------------------


def linen_layer_gradients(
    loss_fn: Callable[[Any], Any],
    params: Any,
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
      >>> import jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from gradchain.layers import linen_layer_gradients
      >>> model, x = nn.Dense(2), jnp.ones((4, 3))
      >>> params = model.init(jax.random.key(0), x)["params"]
      >>> found = linen_layer_gradients(lambda p: model.apply({"params": p}, x).mean(), params)
      >>> found.layer_inputs.shape, found.layer_cotangents.shape
      ((4, 3), (4, 2))
    """
    return _gradients(_intercepted(loss_fn, skip), params, has_aux)


def linen_layers(
    loss_fn: Callable[[Any], Any], params: Any, *, skip: Sequence[str] = (), has_aux: bool = False
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
    return _layers(_intercepted(loss_fn, skip), params, has_aux)


def _intercepted(loss_fn: Callable[[Any], Any], skip: Sequence[str]) -> Callable[[Any], Any]:
    nn = _linen()

    def marking(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        y = next_fun(*args, **kwargs)
        module = context.module
        name = layer_name(module.path)
        if context.method_name != "__call__" or _is_skipped(name, skip):
            return y
        for known, mark in ((nn.Dense, _dense), (nn.DenseGeneral, _general), (nn.Conv, _conv)):
            if _is_plain(module, known):
                return mark(module, name, module.get_variable("params", KERNEL), args[0], y)
        own = module.variables.get("params", {}) if module.scope is not None else {}
        if not isinstance(module, nn.Embed):
            _refuse_unknown(name, module, own)
        return y

    def marked(params: Any) -> Any:
        with nn.intercept_methods(marking):
            return loss_fn(params)

    return marked


def _linen() -> Any:
    try:
        from flax import linen
    except ImportError as error:  # pragma: no cover
        raise ImportError("gradchain.layers needs Flax: pip install 'gradchain[flax]'") from error
    return linen


# --- NNX -----------------------------------------------------------------------------------------


def nnx_layer_gradients(
    model: Any,
    loss_fn: Callable[[Any], Any],
    *,
    wrt: Any = None,
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
    found = _gradients(pure_loss, params, has_aux=True)
    aux, rest = found.aux
    rest_of(rest)
    grads = jax.tree.unflatten(
        jax.tree.structure(nnx.state(model, wrt or nnx.Param)), jax.tree.leaves(found.grads)
    )
    return found._replace(grads=grads, aux=aux)


def nnx_layers(
    model: Any,
    loss_fn: Callable[[Any], Any],
    *,
    wrt: Any = None,
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
    return _layers(pure_loss, params, has_aux=True)


def _functional(
    model: Any, loss_fn: Callable[[Any], Any], wrt: Any, skip: Sequence[str], has_aux: bool
) -> tuple[Any, Callable[[Any], None], Callable[[Any], Any]]:
    nnx = _nnx()
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

    def rest_of(leaves: Any) -> None:
        nnx.update(model, jax.tree.unflatten(jax.tree.structure(rest), leaves))

    return nnx.as_pure(params), rest_of, pure_loss


def _mark_modules(nnx: Any, model: Any, skip: Sequence[str]) -> None:
    """Gives every layer of this copy of the model a class that marks what goes in and out."""
    kinds = ((nnx.Linear, _dense), (nnx.LinearGeneral, _general), (nnx.Conv, _conv))
    for path, module in nnx.iter_modules(model):
        name = layer_name(path)
        if _is_skipped(name, skip):
            continue
        mark = next((mark for known, mark in kinds if _is_plain(module, known)), None)
        if mark is not None:
            base: Any = type(module)
            object.__setattr__(module, "__class__", _marking_class(base, mark, name))
        elif not isinstance(module, nnx.Embed):
            own = {
                key: value[...]
                for key, value in vars(module).items()
                if isinstance(value, nnx.Param) and hasattr(value[...], "ndim")
            }
            _refuse_unknown(name, module, own)


@cache
def _marking_class(base: Any, mark: Any, name: str) -> Any:
    def call(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        y = base.__call__(self, inputs, *args, **kwargs)
        return mark(self, name, self.kernel[...], inputs, y)

    return type(base)(base.__name__, (base,), {"__call__": call, "__module__": base.__module__})


def _nnx() -> Any:
    try:
        from flax import nnx
    except ImportError as error:  # pragma: no cover
        raise ImportError("gradchain.layers needs Flax: pip install 'gradchain[flax]'") from error
    return nnx


# --- marks ---------------------------------------------------------------------------------------


def _is_skipped(name: str, skip: Sequence[str]) -> bool:
    return any(name == one or name.startswith(one + "/") for one in skip)


def _is_plain(module: Any, known: type) -> bool:
    """Whether a module is of that type, or of one derived from it that computes the same."""
    if not isinstance(module, known):
        return False
    between = type(module).__mro__[: type(module).__mro__.index(known)]
    return not any("__call__" in vars(cls) for cls in between)


def _refuse_unknown(name: str, module: Any, own: Any) -> None:
    for key, value in own.items():
        if getattr(value, "ndim", 0) >= 2:
            raise FlowError(
                f"the layer {name} ({type(module).__name__}) has a weight {key!r} of shape "
                f"{value.shape}, and how it is used is not known; leave it out with "
                f"skip=({name!r},), and it follows the plain gradient"
            )


def _dense(module: Any, name: str, kernel: Any, x: Any, y: Any) -> Any:
    return _mark(x, y, kernel, name, "dense", 0, 1)


def _general(module: Any, name: str, kernel: Any, x: Any, y: Any) -> Any:
    if getattr(module, "batch_dims", None) or getattr(module, "batch_axis", None):
        raise FlowError(f"the layer {name} has batch axes: skip=({name!r},) leaves it out")
    axes = tuple(axis % x.ndim for axis in _as_tuple(module.axis))
    outputs = kernel.ndim - len(axes)
    last = tuple(range(x.ndim - len(axes), x.ndim))
    flat = jnp.moveaxis(x, axes, last)
    flat = flat.reshape(*flat.shape[: x.ndim - len(axes)], -1)
    flat_y = y.reshape(*y.shape[: y.ndim - outputs], -1)
    return _mark(flat, flat_y, kernel, name, "dense", 0, outputs).reshape(y.shape)


def _as_tuple(value: Any) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,)
    return tuple(value or ())


def _conv(module: Any, name: str, kernel: Any, x: Any, y: Any) -> Any:
    if module.feature_group_count != 1 or module.mask is not None:
        what = "a mask" if module.mask is not None else "feature groups"
        raise FlowError(f"the convolution {name} has {what}: skip=({name!r},) leaves it out")
    spatial = kernel.ndim - 2
    lead = x.shape[: x.ndim - spatial - 1]
    images = x.reshape(-1, *x.shape[x.ndim - spatial - 1 :])
    patches = _patches(module, kernel.shape, images)
    return _mark(patches.reshape(*lead, *patches.shape[1:]), y, kernel, name, "conv", spatial, 1)


def _patches(module: Any, kernel_shape: tuple[int, ...], images: Any) -> Any:
    """The patches that a convolution sees, (batch, *positions, entries), entries as in a kernel."""
    window, features = kernel_shape[:-2], kernel_shape[-2]
    axes = len(window)

    def broadcast(value: Any) -> tuple[int, ...]:
        return (value or 1,) * axes if isinstance(value, int | None) else tuple(value)

    dilation = broadcast(module.kernel_dilation)
    padding = module.padding
    extent = [(k - 1) * d for k, d in zip(window, dilation, strict=True)]
    if padding in ("CIRCULAR", "REFLECT"):
        pads = [(0, 0), *((e // 2, (e + 1) // 2) for e in extent), (0, 0)]
        images = jnp.pad(images, pads, mode="wrap" if padding == "CIRCULAR" else "reflect")
        padding = "VALID"
    elif padding == "CAUSAL":
        images = jnp.pad(images, [(0, 0), (extent[0], 0), (0, 0)])
        padding = "VALID"
    elif isinstance(padding, int):
        padding = [(padding, padding)] * axes
    elif not isinstance(padding, str):
        padding = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    letters = "HWDXYZ"[:axes]
    patches = jax.lax.conv_general_dilated_patches(
        images,
        window,
        broadcast(module.strides),
        padding,
        lhs_dilation=broadcast(module.input_dilation),
        rhs_dilation=dilation,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        precision=jax.lax.Precision.HIGHEST,
    )
    patches = patches.reshape(*patches.shape[:-1], features, *window)
    patches = jnp.moveaxis(patches, axes + 1, -1)
    return patches.reshape(*patches.shape[: axes + 1], -1)


_mark_p = core.Primitive("gradchain_layer")
"""(x, y, kernel) -> y. Params: name, kind, spatial, outputs, and `stacked`: for every axis that a
vmap put in front of x and y, whether the kernel has it, too."""


def _mark(x: Any, y: Any, kernel: Any, name: str, kind: str, spatial: int, outputs: int) -> Any:
    return _mark_p.bind(
        jax.lax.stop_gradient(x),
        y,
        kernel,
        name=name,
        kind=kind,
        spatial=spatial,
        outputs=outputs,
        stacked=(),
    )


def _marked_batch(args: Any, dims: Any, *, stacked: Any, **params: Any) -> tuple[Any, int]:
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    x, y = (batching.bdim_at_front(a, d, size) for a, d in zip(args[:2], dims[:2], strict=True))
    kernel, is_stack = args[2], dims[2] is not None
    if is_stack:
        kernel = jnp.moveaxis(kernel, dims[2], 0)
    return _mark_p.bind(x, y, kernel, stacked=(is_stack, *stacked), **params), 0


_mark_p.def_impl(lambda x, y, kernel, **_: y)
_mark_p.def_abstract_eval(lambda x, y, kernel, **_: y)
ad.primitive_jvps[_mark_p] = lambda primals, tangents, **params: (
    _mark_p.bind(*primals, **params),
    tangents[1],
)
batching.primitive_batchers[_mark_p] = _marked_batch
mlir.register_lowering(_mark_p, lambda context, x, y, kernel, **_: [y])


# --- finding the marks in a trace ----------------------------------------------------------------


@dataclass(frozen=True)
class _Origin:
    """Which param a value is: its leaf, whether something was computed from it on the way, and
    the scans that took a slice of it, outermost first."""

    leaf: int
    computed: bool = False
    slicing: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Mark:
    """One call of a layer in the trace."""

    params: dict[str, Any]
    x: Any
    y: Any
    origin: _Origin | None
    scans: tuple[tuple[int, int], ...] = ()


@dataclass
class _Search:
    """Walks a trace for marks, in the order in which `_Evaluation` meets them."""

    marks: list[_Mark] = field(default_factory=list)
    scans: list[tuple[int, int]] = field(default_factory=list)
    opened: int = 0

    def visit(self, jaxpr: Any, origins: Sequence[_Origin | None]) -> list[_Origin | None]:
        """The origins of the outputs, given those of the inputs."""
        known = dict(zip(jaxpr.invars, origins, strict=True))

        def of(atom: Any) -> _Origin | None:
            return None if isinstance(atom, core.Literal) else known.get(atom)

        for eqn in jaxpr.eqns:
            outputs = self._equation(eqn, [of(atom) for atom in eqn.invars])
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [of(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, origins: list[_Origin | None]) -> list[_Origin | None]:
        if eqn.primitive is _mark_p:
            x, y, _ = (atom.aval for atom in eqn.invars)
            self.marks.append(_Mark(dict(eqn.params), x, y, origins[2], tuple(self.scans)))
            return [origins[1]]
        inner = _inner(eqn)
        if eqn.primitive.name == "scan":
            return self._scan(eqn, inner, origins)
        if inner is not None:
            return self.visit(inner, origins)
        for sub in core.jaxprs_in_params(eqn.params):
            name = _first_mark(sub)
            if name is not None:
                raise FlowError(
                    f"the layer {name} is called inside `{eqn.primitive.name}`, where its inputs "
                    f"cannot be read: skip=({name!r},) leaves it out"
                )
        if eqn.primitive.name in _PASSING:
            return [origins[0]]
        derived = next((o for o in origins if o is not None), None)
        if derived is not None:
            derived = _Origin(derived.leaf, True, derived.slicing)
        return [derived] * len(eqn.outvars)

    def _scan(self, eqn: Any, body: Any, origins: list[_Origin | None]) -> list[_Origin | None]:
        consts, carry = eqn.params["num_consts"], eqn.params["num_carry"]
        self.opened += 1
        level = self.opened
        inner: list[_Origin | None] = []
        for i, origin in enumerate(origins):
            if origin is None:
                inner.append(None)
            elif i < consts or (i < consts + carry and body.outvars[i - consts] is body.invars[i]):
                inner.append(origin)
            elif i < consts + carry:
                inner.append(_Origin(origin.leaf, True, origin.slicing))
            else:
                inner.append(_Origin(origin.leaf, origin.computed, (*origin.slicing, level)))
        self.scans.append((level, eqn.params["length"]))
        out = self.visit(body, inner)
        self.scans.pop()
        kept = [o if i < carry else None for i, o in enumerate(out)]
        return kept


_PASSING = frozenset(
    {"convert_element_type", "copy", "copy_p", "sharding_constraint", "optimization_barrier"}
)
_INLINED = frozenset({"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "scan"})


def _inner(eqn: Any) -> Any:
    """The inner trace of a call, None for anything else."""
    if eqn.primitive.name not in _INLINED:
        return None
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    return inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner


def _first_mark(jaxpr: Any) -> str | None:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in jaxpr.eqns:
        if eqn.primitive is _mark_p:
            return str(eqn.params["name"])
        for sub in core.jaxprs_in_params(eqn.params):
            found = _first_mark(sub)
            if found is not None:
                return found
    return None


def _has_mark(eqn: Any) -> bool:
    return any(_first_mark(sub) is not None for sub in core.jaxprs_in_params(eqn.params))


# --- running a trace with its marks --------------------------------------------------------------


def _evaluate(jaxpr: Any, consts: Any, args: Any, added: Iterator[Any]) -> tuple[list[Any], Any]:
    """Runs a trace; the next of `added` is added to every marked output.

    Returns:
      The outputs, and the marked inputs in the order of the marks.
    """
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    inputs: list[Any] = []

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        if eqn.primitive is _mark_p:
            inputs.append(values[0])
            out = [values[1] + next(added)]
        elif _inner(eqn) is not None and _has_mark(eqn):
            out, more = _call(eqn, values, added)
            inputs += more
        else:
            out = _apply(jaxpr, eqn, values)
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars], inputs


def _apply(jaxpr: Any, eqn: Any, values: list[Any]) -> list[Any]:
    """Runs one equation: as a trace of its own, so that jax keeps its rules of differentiation."""
    given = {atom: x for atom, x in zip(eqn.invars, values, strict=True) if _is_variable(atom)}
    wanted = [atom for atom in eqn.outvars if not isinstance(atom, core.DropVar)]
    alone = jaxpr.replace(constvars=[], invars=list(given), outvars=wanted, eqns=[eqn])
    found = core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*given.values())
    named = dict(zip(wanted, found, strict=True))
    return [named.get(atom) for atom in eqn.outvars]


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, core.Literal)


def _call(eqn: Any, values: list[Any], added: Iterator[Any]) -> tuple[list[Any], list[Any]]:
    closed = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    inner, consts = _inner(eqn), getattr(closed, "consts", ())
    mine = [next(added) for _ in range(_count_marks(inner))]
    if eqn.primitive.name == "scan":
        return _run_scan(eqn, inner, consts, values, mine)

    def run(values: list[Any], mine: list[Any]) -> tuple[list[Any], list[Any]]:
        return _evaluate(inner, consts, values, iter(mine))

    if eqn.primitive.name in ("remat2", "checkpoint"):
        chosen = {key: eqn.params[key] for key in ("prevent_cse", "policy")}
        return jax.checkpoint(run, **chosen)(values, mine)
    return run(values, mine)


def _count_marks(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        inner = _inner(eqn)
        total += 1 if eqn.primitive is _mark_p else _count_marks(inner) if inner else 0
    return total


def _run_scan(
    eqn: Any, body: Any, consts: Any, values: list[Any], mine: list[Any]
) -> tuple[list[Any], list[Any]]:
    fixed, carried = eqn.params["num_consts"], eqn.params["num_carry"]
    shared, carry, scanned = (
        values[:fixed],
        values[fixed : fixed + carried],
        values[fixed + carried :],
    )

    def step(carry: Any, slices: Any) -> Any:
        scanned, mine = slices
        out, inputs = _evaluate(body, consts, [*shared, *carry, *scanned], iter(mine))
        return out[:carried], (out[carried:], inputs)

    chosen = {key: eqn.params[key] for key in ("length", "reverse", "unroll")}
    carry, (stacked, inputs) = jax.lax.scan(step, carry, (scanned, mine), **chosen)
    return [*carry, *stacked], inputs


# --- putting it together -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trace:
    """A traced loss with its marks."""

    jaxpr: Any
    outputs: Any
    marks: list[_Mark]
    paths: list[tuple[Any, ...]]
    leaves: list[Any]
    treedef: Any


def _trace(loss_fn: Callable[[Any], Any], params: Any, has_aux: bool) -> _Trace:
    def loss_and_aux(params: Any) -> Any:
        out = loss_fn(params)
        loss, aux = out if has_aux else (out, None)
        if jnp.shape(loss):
            raise FlowError(f"the loss must be a scalar, it has shape {jnp.shape(loss)}")
        return loss, aux

    closed, outputs = jax.make_jaxpr(loss_and_aux, return_shape=True)(params)
    paths = [plain_path(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    leaves, treedef = jax.tree.flatten(params)
    search = _Search()
    search.visit(closed.jaxpr, [_Origin(i) for i in range(len(leaves))])
    return _Trace(closed, outputs, search.marks, paths, leaves, treedef)


def _gradients(loss_fn: Callable[[Any], Any], params: Any, has_aux: bool) -> LayerGradients:
    trace = _trace(loss_fn, params, has_aux)
    zeros = [_zeros(mark) for mark in trace.marks]

    def run(params: Any, added: list[Any]) -> Any:
        leaves = jax.tree.leaves(params)
        out, inputs = _evaluate(trace.jaxpr.jaxpr, trace.jaxpr.consts, leaves, iter(added))
        loss, aux = jax.tree.unflatten(jax.tree.structure(trace.outputs), out)
        return loss, (aux, inputs)

    graded = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
    (value, (aux, inputs)), (grads, cotangents) = graded(params, zeros)
    uses: dict[int, list[tuple[Any, Any]]] = {}
    for mark, x, d in zip(trace.marks, inputs, cotangents, strict=True):
        if mark.origin is not None:
            arranged = _arranged(mark, x, trace), _arranged(mark, d, trace)
            uses.setdefault(mark.origin.leaf, []).append(arranged)
    first: Any = {}
    second: Any = {}
    layers = _layer_of(trace)
    for i, path in enumerate(trace.paths):
        owner = path[:-1] if path[-1:] in ((KERNEL,), (BIAS,)) else path
        if i in uses:
            layer = layers[i]
            assert layer is not None
            first = _entered(first, owner, _joined([x for x, _ in uses[i]], layer, path))
            second = _entered(second, owner, _joined([d for _, d in uses[i]], layer, path))
        elif i in layers:
            first, second = (_entered(tree, owner, None) for tree in (first, second))
    return LayerGradients(value, grads, first, second, aux)


def _layers(loss_fn: Callable[[Any], Any], params: Any, has_aux: bool) -> dict[str, Layer | None]:
    trace = _trace(loss_fn, params, has_aux)
    found = {}
    for i, layer in _layer_of(trace).items():
        path = trace.paths[i]
        found[layer_name(path[:-1] if path[-1:] == (KERNEL,) else path)] = layer
    return found


def _layer_of(trace: _Trace) -> dict[int, Layer | None]:
    """For every leaf that could be a kernel, how it is read, or None."""
    found: dict[int, Layer | None] = {}
    for i, (path, leaf) in enumerate(zip(trace.paths, trace.leaves, strict=True)):
        if leaf.ndim >= 2 and path[-1:] not in ((TABLE,), (BIAS,)):
            found[i] = None
    for mark in trace.marks:
        name = mark.params["name"]
        if mark.origin is None:
            continue
        if mark.origin.computed:
            raise FlowError(
                f"the kernel of layer {name} is computed from the params, not one of them: "
                f"skip=({name!r},) leaves it out"
            )
        layer = Layer(_stacked(mark), mark.params["outputs"], mark.params["kind"] == "conv")
        i = mark.origin.leaf
        shape = trace.leaves[i].shape
        if found.get(i) not in (None, layer) or _stack_shape(mark) != shape[: layer.stacked]:
            raise FlowError(
                f"the layer {name} uses its kernel of shape {shape} in a way that cannot be read "
                f"(stacked along another axis than the first, or differently in two places): "
                f"skip=({name!r},) leaves it out"
            )
        found[i] = layer
    return found


def _flags(mark: _Mark) -> list[bool]:
    """For every leading axis of the marked arrays, scans first, whether the kernel has it."""
    assert mark.origin is not None
    return [level in mark.origin.slicing for level, _ in mark.scans] + list(mark.params["stacked"])


def _stacked(mark: _Mark) -> int:
    return sum(_flags(mark))


def _stack_shape(mark: _Mark) -> tuple[int, ...]:
    lead = (*(length for _, length in mark.scans), *mark.y.shape)
    return tuple(size for size, flag in zip(lead, _flags(mark), strict=False) if flag)


def _zeros(mark: _Mark) -> Any:
    return jnp.zeros((*(length for _, length in mark.scans), *mark.y.shape), mark.y.dtype)


def _arranged(mark: _Mark, array: Any, trace: _Trace) -> Any:
    """An array of a mark with its stacking axes in front, ready for the optimizer."""
    flags, scans = _flags(mark), len(mark.scans)
    stack = [i for i, flag in enumerate(flags) if flag]
    mapped = [i for i in range(scans, len(flags)) if not flags[i]]
    repeated = [i for i in range(scans) if not flags[i]]
    own = list(range(len(flags), array.ndim))
    if mark.params["kind"] == "dense":
        moved = jnp.transpose(array, [*stack, *repeated, *mapped, *own])
        sizes = [moved.shape[i] for i in range(len(stack))]
        return moved if moved.ndim > len(stack) + 1 else moved.reshape(*sizes, 1, moved.shape[-1])
    spatial = mark.params["spatial"]
    batch, positions = own[: len(own) - spatial - 1], own[len(own) - spatial - 1 :]
    order = [*stack, *mapped, *batch, *repeated, *positions]
    moved = jnp.transpose(array, order)
    count = prod(array.shape[i] for i in (*mapped, *batch))
    return moved.reshape(
        *(array.shape[i] for i in stack), count, *(array.shape[i] for i in (*repeated, *positions))
    )


def _joined(arrays: list[Any], layer: Layer, path: tuple[Any, ...]) -> Any:
    """The rows of all calls of a shared layer."""
    if len(arrays) == 1:
        return arrays[0]
    lead = layer.stacked + bool(layer.convolution)
    if len({array.shape[:lead] for array in arrays}) > 1:
        raise FlowError(
            f"the convolution {layer_name(path[:-1])} is called on batches of different size: "
            "skip leaves it out"
        )
    flat = [array.reshape(*array.shape[:lead], -1, array.shape[-1]) for array in arrays]
    return jnp.concatenate(flat, axis=lead)


def _entered(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The nested dict with a value at a path."""
    if not path or not isinstance(tree, dict):
        return value if not path else tree
    inner = _entered(tree.get(path[0], {}), path[1:], value)
    return {**tree, path[0]: inner}
