"""Hyper-parameters: refused by name when out of range, and remembered for tables and drawings."""

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from .arguments import arguments_of
from .build import Flow
from .compose import named
from .errors import FlowError
from .precision import storing
from .refusing import bind, check_arguments, label_of, refusing

Factory = TypeVar("Factory", bound=Callable[..., Any])
Arguments = ParamSpec("Arguments")
Handed = TypeVar("Handed")
Made = TypeVar("Made", covariant=True)

_given: ContextVar[dict[str, Any] | None] = ContextVar("gradchain_arguments", default=None)
_running: ContextVar[str] = ContextVar("gradchain_function", default="")


def checked() -> Callable[[Factory], Factory]:
    """Decorates a function whose arguments are hyper-parameters: see `transformation`.

    Part of the notation.
    """

    def decorate(function: Factory) -> Factory:
        @functools.wraps(function)
        def checked_function(*args: Any, **kwargs: Any) -> Any:
            check_arguments(function, bind(function, args, kwargs))
            token = _running.set(_running.get() or label_of(function))
            try:
                return function(*args, **kwargs)
            finally:
                _running.reset(token)

        return checked_function  # type: ignore[return-value]

    return decorate


def refusal(problem: str) -> FlowError:
    """The error for an argument of the function that is running and was decorated with `checked`.

    Part of the notation.

    Args:
      problem: a sentence that begins with the name of the argument.
    """
    label = _running.get()
    return FlowError(f"{label}: {problem}" if label else problem)


class NamedFactory(Protocol[Arguments, Made]):
    """A factory that also takes the name under which the state is kept inside other flows."""

    __name__: str

    @overload
    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Made: ...

    @overload
    def __call__(self, *args: Any, name: str | None, **kwargs: Any) -> Made: ...


@refusing
def transformation(
    *, synonyms: Mapping[str, str] | None = None, renamed: Mapping[str, str] | None = None
) -> Callable[[Callable[Arguments, Made]], NamedFactory[Arguments, Made]]:
    """Decorates a factory of transformations.

    Part of the notation.

    The result knows the factory's name and arguments, and an argument that is not what its
    annotation says (see `hyperparameters`) is refused by name. Scalar arrays, which may be traced,
    pass. With the arguments `mu_dtype` and `nu_dtype`, first and second moments that are made in
    the factory are stored so, by the names of their states (see `precision`). Beside its own
    arguments the factory takes `name=`, under which its state is kept inside
    other flows: `g >> ema(b1, name="mu")`.

    Args:
      synonyms: further names of arguments, such as those that Optax has for them.
      renamed: names that Optax's factory has for what is called or done otherwise here -> what to
        write instead; they are refused with that.
    """

    def decorate(factory: Callable[Arguments, Made]) -> NamedFactory[Arguments, Made]:
        label = factory.__name__
        other_names = _other_names(synonyms or {}, renamed or {})

        @functools.wraps(factory)
        def checked(*args: Any, **kwargs: Any) -> Any:
            kwargs = other_names(label, kwargs)
            arguments = arguments_of(factory)
            state_name = None if "name" in arguments else kwargs.pop("name", None)
            bound = bind(factory, args, kwargs)
            for name, argument in arguments.items():
                argument.check(label, bound[name])
            token = _given.set(bound)
            try:
                with storing(bound.get("mu_dtype"), bound.get("nu_dtype")):
                    made: Any = factory(*args, **kwargs)
            except FlowError as error:
                if token.old_value is Token.MISSING and label not in str(error):
                    # of what is built inside, which does not know what the user called
                    error.args = (f"{label}: {error}",)
                raise
            finally:
                _given.reset(token)
            if not isinstance(made, Flow):
                return made if state_name is None else named(state_name, made)
            remake = functools.partial(checked, *args, **kwargs)
            made = made.relabelled(label, bound, remake, hasattr(checked, "is_method"))
            return made if state_name is None else named(state_name, made)

        checked.synonyms, checked.renamed = dict(synonyms or {}), dict(renamed or {})  # type: ignore[attr-defined]
        return checked

    return decorate


def _other_names(
    synonyms: Mapping[str, str], renamed: Mapping[str, str]
) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """What turns arguments by the names of another library into ours, or refuses them."""

    def ours(label: str, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if name in renamed:
                raise TypeError(f"{label}: {name} is not taken here: {renamed[name]}")
            if name in synonyms and synonyms[name] in given:
                raise TypeError(f"{label}: {name} and {synonyms[name]} are the same argument")
        return {synonyms.get(name, name): value for name, value in given.items()}

    return ours


@refusing
def handed_on(direction: Callable[..., Handed], **replaced: Any) -> Handed:
    """The direction of the factory that is running, with its arguments of the same names.

    Part of the notation.

    For the body of a factory decorated with `transformation`:

        @transformation()
        def adam(learning_rate: optax.ScalarOrSchedule, b1: Decay = 0.9, ...) -> Flow:
            return chain(handed_on(scale_by_adam), scale_by_learning_rate(learning_rate))

    is `scale_by_adam(b1=b1, ...)`. Arguments of the direction that the factory does not have keep
    their defaults. A step that two factories share is handed theirs on likewise.

    Args:
      direction: a factory, or a function of signals and of arguments of those names.
      **replaced: arguments that are not those of the factory.
    """
    given = _given.get()
    if given is None:
        raise TypeError("handed_on() belongs into a factory decorated with transformation()")
    names = inspect.signature(direction).parameters
    return direction(**{name: given[name] for name in names if name in given} | replaced)
