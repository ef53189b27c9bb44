"""Functions that refuse what the annotations of their arguments do not allow, by name."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from .arguments import argument_of, arguments_of, shown
from .errors import FlowError
from .signal import Signal

Refusing = TypeVar("Refusing", bound=Callable[..., Any])


def refusing(function: Refusing) -> Refusing:
    """Decorates a function of the notation, or a class, of which nobody but itself is to be told.

    No class of trees of JAX's: these are also made of what stands for arrays.
    """
    if inspect.isclass(function):
        constructor = function.__init__
        # messages call it as the function that it is elsewhere: half_space for HalfSpace
        constructor.__qualname__ = re.sub("(?<=.)(?=[A-Z])", "_", function.__name__).lower()
        function.__init__ = refusing(constructor)  # type: ignore[method-assign]
        return function

    @functools.wraps(function)
    def refusing_function(*args: Any, **kwargs: Any) -> Any:
        check_arguments(function, bind(function, args, kwargs))
        return function(*args, **kwargs)

    return refusing_function  # type: ignore[return-value]


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raises FlowError for the first argument that is not what its annotation says."""
    parameters = _signature(function).parameters
    for name, argument in arguments_of(function).items():
        if given[name] is not parameters[name].default:
            argument.check(label_of(function), given[name])


def check_call(
    label: str,
    signature: inspect.Signature | None,
    operands: Sequence[object],
    constants: Mapping[str, Any],
    ours: bool,
) -> None:
    """Raises FlowError for what a lifted function cannot be called with.

    Args:
      label: what messages call it.
      signature: that of the function that was lifted; None: unknown.
      operands: what it is given by place.
      constants: what it is given by name.
      ours: whether its annotations say what the constants may be.
    """
    if signature is None:
        return
    try:
        signature.bind(*operands, **constants)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        raise FlowError(f"{label}: {error}; its arguments are {names}") from None
    known = signature.parameters if ours else {}
    for name, value in constants.items():
        if isinstance(value, Signal):
            raise FlowError(f"{label}: {name}={value!r} is a signal; give it by its place")
        if name in known:
            argument_of(name, known[name].annotation).check(label, value)


def label_of(function: Callable[..., Any]) -> str:
    """What messages call it: a constructor by its class."""
    return function.__qualname__.removesuffix(".__init__").rpartition(".")[2]


def bind(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """What is given by the names of the arguments, defaults included; TypeError if it is not it."""
    signature = _signature(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        arguments = shown(signature, function)
        raise TypeError(f"{label_of(function)}: {error}; its arguments are {arguments}") from None
    bound.apply_defaults()
    return dict(bound.arguments)


@functools.cache  # at the first call: hundreds of factories are imported, and few are called
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)
