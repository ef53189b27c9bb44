"""Hyper-parameters as part of the state, to be scheduled or changed while training."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import optax

from ..notation.arguments import argument_of
from ..notation.domains import Static


def inject_hyperparams(
    factory: Callable[..., Any], static_args: Iterable[str] = ()
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """`optax.inject_hyperparams` that keeps precision and knows what must stay static.

    A function of factories.

    Numbers become arrays in `state.hyperparams`, in the default float dtype and not in that of the
    params, in which 0.999 may be 1. Static are: numbers that are annotated `int` or `float`,
    because they set sizes, lengths or counts; functions that are not schedules (masks, samplers);
    and a number of exactly 0, which leaves a part out: a momentum or a decay that is to be changed
    while training starts at another number.

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

    @functools.wraps(factory)
    def injected(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        static = {
            name
            for name, value in bound.arguments.items()
            if _is_static(signature.parameters[name], value)
        }
        wrapped = optax.inject_hyperparams(factory, {*static, *static_args}, jnp.result_type(float))
        return wrapped(*args, **kwargs)

    return injected


def _is_static(parameter: inspect.Parameter, value: Any) -> bool:
    if parameter.name == "key":  # a float is no seed, and would not hold every one
        return True
    if isinstance(value, int | float):
        kind = type(value)
        is_plain = parameter.annotation in (kind, kind | None)
        return is_plain or _sets_a_size(parameter) or _leaves_out(parameter, value)
    return callable(value) and not _may_be_schedule(parameter)


def _sets_a_size(parameter: inspect.Parameter) -> bool:
    domains = argument_of(parameter.name, parameter.annotation).domains
    return any(isinstance(domain, Static) for domain in domains)


def _leaves_out(parameter: inspect.Parameter, value: float) -> bool:
    """Whether the number says that a part, such as the momentum and its state, is not there."""
    return value == 0 and parameter.annotation != optax.ScalarOrSchedule


def _may_be_schedule(parameter: inspect.Parameter) -> bool:
    is_number = isinstance(parameter.default, float)
    return is_number or parameter.annotation == optax.ScalarOrSchedule
