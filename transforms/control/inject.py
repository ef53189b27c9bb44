"""Hyper-parameters as part of the state, to be scheduled or changed while training."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..notation.arguments import Argument, arguments_of
from ..notation.checks import checked
from ..notation.domains import Interval, Keys, Neutral, Static
from ..notation.hyperparameters import is_neutral
from ..notation.injected import constant_arrays


@checked()
def inject_hyperparams(
    factory: Callable[..., Any], static_args: Iterable[str] = ()
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """`optax.inject_hyperparams` that keeps precision and knows what must stay static.

    A function of factories.

    A function of transformations.

    Numbers become arrays in `state.hyperparams`, in the default float dtype and not in that of the
    params, in which 0.999 may be 1. Schedules stay what they are: a method that takes them does
    what it does without injection, and `state.hyperparams` shows their present values.

    Static are: integers, seeds and numbers that set sizes, by the types of the arguments; functions
    that are no schedules (masks, samplers); and a number of exactly 0, which leaves a part out: a
    momentum or a decay that is to be changed while training starts at another number.

    Args:
      factory: a factory of ours or of Optax.
      static_args: further arguments that are not injected.

    Returns:
      A factory with the same arguments, any float of which may be a schedule.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain import inject_hyperparams
      >>> from gradchain.optimizers import adam
      >>> opt = inject_hyperparams(adam)(learning_rate=optax.linear_schedule(1.0, 0.0, 10))
      >>> state = opt.init(jnp.zeros(2, jnp.bfloat16))
      >>> float(state.hyperparams["learning_rate"])
      1.0
    """
    signature = inspect.signature(factory)
    fixed = {static_args} if isinstance(static_args, str) else set(static_args)
    unknown = fixed - set(signature.parameters)
    if unknown:
        raise ValueError(f"static_args {sorted(unknown)} are no arguments of {factory.__name__}")

    @functools.wraps(factory)
    def injected(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        parts = _sorted(factory, signature, bound.arguments, fixed)
        return _injected(factory, parts)

    return injected


class _Parts(NamedTuple):
    """The arguments of a factory by what becomes of them.

    Attributes:
      static: handed on as they are.
      numbers: kept in the state.
      shown: schedules that the factory takes itself.
      followed: schedules whose value is kept in the state at every step.
    """

    static: dict[str, Any]
    numbers: dict[str, Any]
    shown: dict[str, Callable[[Any], Any]]
    followed: dict[str, Any]


def _sorted(
    factory: Callable[..., Any],
    signature: inspect.Signature,
    given: Mapping[str, Any],
    fixed: set[str],
) -> _Parts:
    parts = _Parts({}, {}, {}, {})
    arguments = arguments_of(factory)
    for name, value in given.items():
        argument, annotation = arguments[name], signature.parameters[name].annotation
        if name in fixed or isinstance(value, bool):
            parts.static[name] = value
        elif isinstance(value, optax.schedules.StatefulSchedule):
            parts.followed[name] = value
        elif callable(value):
            default = signature.parameters[name].default
            if not (argument.takes_schedules or _is_number(default)):
                parts.static[name] = value
            elif argument.takes_schedules:
                parts.shown[name] = value
            else:
                parts.followed[name] = optax.schedules.WrappedSchedule(value)
        elif _is_number(value) and not _is_static(argument, annotation, value):
            parts.numbers[name] = value
        else:
            parts.static[name] = value
    return parts


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | jax.Array | np.ndarray) and not isinstance(value, bool)


def _is_static(argument: Argument, annotation: object, value: object) -> bool:
    for domain in argument.domains:
        if isinstance(domain, Static | Keys) or (isinstance(domain, Interval) and domain.integer):
            return True
    is_plain = isinstance(value, int | float) and annotation in (type(value), type(value) | None)
    neutral = next((d.value for d in argument.domains if isinstance(d, Neutral)), 0.0)
    return is_plain or (is_neutral(value, neutral) and not argument.is_rate)


def _injected(factory: Callable[..., Any], parts: _Parts) -> optax.GradientTransformationExtraArgs:
    """The transformation that is made anew at every step, from the numbers in its state."""
    dtype = jnp.result_type(float)

    def made(values: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
        numbers = {name: values[name] for name in (*parts.numbers, *parts.followed)}
        constant = contextlib.nullcontext() if parts.followed else constant_arrays()
        with constant:
            made = factory(**parts.static, **parts.shown, **numbers)
        return optax.with_extra_args_support(made)

    def shown(count: jax.Array) -> dict[str, Any]:
        return {name: jnp.asarray(f(count), dtype) for name, f in parts.shown.items()}

    def init(params: optax.Params) -> optax.OptState:
        count = jnp.zeros([], jnp.int32)
        states = {name: schedule.init() for name, schedule in parts.followed.items()}
        values = {name: jnp.asarray(value, dtype) for name, value in parts.numbers.items()}
        values |= {n: jnp.asarray(f(states[n]), dtype) for n, f in parts.followed.items()}
        state = made(values).init(params)
        return optax.InjectStatefulHyperparamsState(count, values | shown(count), states, state)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        states = state.hyperparams_states
        values = {name: jnp.asarray(state.hyperparams[name], dtype) for name in parts.numbers}
        for name, schedule in parts.followed.items():
            values[name] = jnp.asarray(schedule(states[name], **extra), dtype)
        states = {n: f.update(states[n], **extra) for n, f in parts.followed.items()}
        count: Any = optax.safe_increment(state.count)
        updates, inner = made(values).update(updates, state.inner_state, params, **extra)
        return updates, optax.InjectStatefulHyperparamsState(
            count, values | shown(state.count), states, inner
        )

    return optax.GradientTransformationExtraArgs(init, update)
