"""Hyper-parameters: refused by name when out of range, and remembered for tables and drawings."""

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

from .arguments import arguments_of, spelled
from .build import Flow
from .compose import named
from .domains import Interval
from .ranges_by_name import (  # noqa: F401
    any_integer,
    any_number,
    by_name,
    check_choice,
    count_from_0,
    count_from_1,
    decay_rate,
    fraction,
    nonnegative,
    positive,
)

Factory = TypeVar("Factory", bound=Callable[..., Any])

_given: ContextVar[dict[str, Any] | None] = ContextVar("gradchain_arguments", default=None)


def checked() -> Callable[[Factory], Factory]:
    """Decorates a function whose arguments are hyper-parameters: see `transformation`.

    Part of the notation.
    """

    def decorate(function: Factory) -> Factory:
        signature = inspect.signature(function)
        label = function.__name__

        @functools.wraps(function)
        def checked_function(*args: Any, **kwargs: Any) -> Any:
            check_arguments(function, _bind(signature, label, args, kwargs))
            return function(*args, **kwargs)

        return checked_function  # type: ignore[return-value]

    return decorate


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raises FlowError for the first argument that is not what its annotation says."""
    for name, argument in arguments_of(function).items():
        argument.check(function.__name__, given[name])


def transformation(**ranges: Interval | None) -> Callable[[Factory], Factory]:
    """Decorates a factory of transformations.

    Part of the notation.

    The result knows the factory's name and arguments, and an argument that is not what its
    annotation says (see `hyperparameters`) is refused by name. Scalar arrays, which may be traced,
    pass. Beside its own arguments the factory takes `name=`, under which its state is kept inside
    other flows: `g >> ema(b1, name="mu")`.
    """

    def decorate(factory: Factory) -> Factory:
        signature = inspect.signature(factory)
        label = factory.__name__
        untyped = {n for n, p in signature.parameters.items() if p.annotation is Any}
        arguments = {
            n: by_name(a, ranges) if n in untyped or n in ranges else a
            for n, a in arguments_of(factory).items()
        }

        @functools.wraps(factory)
        def checked(*args: Any, **kwargs: Any) -> Any:
            state_name = None if "name" in arguments else kwargs.pop("name", None)
            bound = _bind(signature, label, args, kwargs)
            for name, argument in arguments.items():
                argument.check(label, bound[name])
            token = _given.set(bound)
            try:
                made = factory(*args, **kwargs)
            finally:
                _given.reset(token)
            if not isinstance(made, Flow):
                return made if state_name is None else named(state_name, made)
            made = made.relabelled(label, bound, functools.partial(checked, *args, **kwargs))
            return made if state_name is None else named(state_name, made)

        return checked  # type: ignore[return-value]

    return decorate


def handed_on(direction: Callable[..., Flow], **replaced: Any) -> Flow:
    """The direction of the factory that is running, with its arguments of the same names.

    Part of the notation.

    For the body of a factory decorated with `transformation`:

        @transformation()
        def adam(learning_rate: optax.ScalarOrSchedule, b1: Decay = 0.9, ...) -> Flow:
            return chain(handed_on(scale_by_adam), scale_by_learning_rate(learning_rate))

    is `scale_by_adam(b1=b1, ...)`. Arguments of the direction that the factory does not have keep
    their defaults.

    Args:
      direction: a factory.
      **replaced: arguments that are not those of the factory.
    """
    given = _given.get()
    if given is None:
        raise TypeError("handed_on() belongs into a factory decorated with transformation()")
    names = inspect.signature(direction).parameters
    return direction(**{name: given[name] for name in names if name in given} | replaced)


def _bind(
    signature: inspect.Signature, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        shown = ", ".join(map(_shown, signature.parameters.values()))
        raise TypeError(f"{label}: {error}; its arguments are ({shown})") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def _shown(parameter: inspect.Parameter) -> str:
    has_default = parameter.default is not parameter.empty
    default = f" = {parameter.default!r}" if has_default else ""
    if parameter.annotation is parameter.empty:
        return f"{parameter}"
    return f"{parameter.name}: {spelled(parameter.annotation)}{default}"
