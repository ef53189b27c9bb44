"""What can be told of a transformation of which only `init` and `update` are known."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .errors import FlowError


class Owner:
    """What the `init` and `update` of a flow are methods of: a `Program`, as others see it."""

    init: Callable[..., Any]
    update: Callable[..., Any]


def owner_of(transformation: object) -> Any:
    """The program whose functions a transformation consists of; None if they are foreign.

    A named tuple of them is all that there is to a flow: whoever rebuilds it from its two
    functions, as JAX, `copy` and `pickle` do, has the same flow.
    """
    owner = getattr(getattr(transformation, "update", None), "__self__", None)
    init = getattr(transformation, "init", None)
    return owner if isinstance(owner, Owner) and init == owner.init else None


def refuse_other_than_transformations(label: str, transformation: object) -> None:
    """Raises FlowError for what has no `init` and `update`, naming the function it was given to."""
    if not (hasattr(transformation, "init") and hasattr(transformation, "update")):
        raise FlowError(f"{label}: transformation={transformation!r} must be a transformation")


def update_with_extra(transformation: optax.GradientTransformation) -> Callable[..., Any]:
    """The update of any transformation, which takes further inputs and drops what it cannot use.

    Unlike with `optax.with_extra_args_support`, the update decides and not the type: that of an
    `optax.MultiSteps` passes them on, also as the plain transformation that it can be made.
    """
    update = transformation.update
    if isinstance(transformation, optax.GradientTransformationExtraArgs):
        return update
    parameters = list(inspect.signature(update).parameters.values())
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        return update
    known = {parameter.name for parameter in parameters[3:]}

    def chosen(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        return update(updates, state, params, **{k: extra[k] for k in extra.keys() & known})

    return chosen


def brief(value: object) -> str:
    """A hyper-parameter as tables and messages show it."""
    if owner_of(value) is not None:
        return repr(owner_of(value))
    if value is None or isinstance(value, float | int | str | bool):
        return repr(value)
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return str(value) if getattr(value, "shape", None) == () else type(value).__name__


def foreign_name(transformation: optax.GradientTransformation) -> str:
    """The name of the factory that seems to have made it."""
    for function in (transformation.update, transformation.init):
        name = getattr(function, "__qualname__", "").split(".<locals>")[0].rsplit(".", 1)[-1]
        if name.isidentifier() and not name.startswith("_") and name not in _ANONYMOUS:
            return name
    return "transformation"


_ANONYMOUS = {"stateless", "with_extra_args_support", "init_fn", "update_fn", "update"}


def closed_over(function: Callable[..., Any]) -> dict[str, Any]:
    """The numbers that a function closes over: hyper-parameters of a foreign transformation."""
    captured = _captured(function)
    return {
        k: value for k, value in captured.items() if isinstance(value, bool | int | float | str)
    }


def _captured(function: Callable[..., Any]) -> dict[str, Any]:
    cells = getattr(function, "__closure__", None) or ()
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    values = {}
    for name, cell in zip(names, cells, strict=False):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    return values


def parts_of(transformation: optax.GradientTransformation) -> tuple[Any, ...]:
    """What an `optax.chain` was made of; empty for anything else."""
    inits = _captured(transformation.init).get("init_fns", ())
    updates = _captured(transformation.update).get("update_fns", ())
    pairs = zip(inits, updates, strict=False)
    return tuple(_original(init, update) for init, update in pairs)


def _original(init: Callable[..., Any], update: Callable[..., Any]) -> Any:
    """The transformation that these functions belong to."""
    return _captured(update).get("tx", optax.GradientTransformationExtraArgs(init, update))


def state_without_arrays(transformation: optax.GradientTransformation) -> Any:
    """The state of a transformation that keeps no array; None for any other."""
    shapes = {"matrix": (2, 2), "scalar": ()}
    probe = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    try:
        state = jax.eval_shape(transformation.init, probe)
    except Exception:  # whatever it needs of real params, it is safer to call it stateful
        return None
    return None if jax.tree.leaves(state) else state
