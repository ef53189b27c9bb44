"""Reading a factory's annotations: what each of its arguments may be."""

import ast
import builtins
import collections.abc
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import jax
import numpy as np
import optax
from jax.typing import ArrayLike, DTypeLike
from numpy.typing import ArrayLike as Listed

from .domains import (
    AnyOf,
    Arrays,
    Choice,
    Domain,
    DTypes,
    Functions,
    Having,
    Instances,
    Interval,
    Mappings,
    Numerical,
    Places,
    Sequences,
    Switch,
    Transformations,
    Trees,
    Words,
)
from .errors import FlowError
from .hyperparameters import ALIASES, NonNegative


@dataclass(frozen=True)
class Argument:
    """What one argument may be.

    Attributes:
      name: its name.
      domains: each of them must be satisfied.
      choices: values that are always allowed.
      optional: whether None is.
      functions: whether functions are, such as schedules.
      is_rate: whether it has the type of Optax's learning rates.
    """

    name: str
    domains: tuple[Domain, ...] = ()
    choices: tuple[object, ...] = ()
    optional: bool = False
    functions: bool = False
    is_rate: bool = False

    @property
    def takes_schedules(self) -> bool:
        """Whether a function is taken for a number that changes from step to step."""
        return self.functions and any(isinstance(domain, Interval) for domain in self.domains)

    def check(self, label: str, value: object) -> None:
        """Raises FlowError for a value that is not allowed, naming method, argument and range."""
        problem = self.problem(value)
        if problem:
            raise FlowError(f"{label}: {self.name}={value!r} {problem}")

    def problem(self, value: object) -> str | None:
        """What is wrong with a value, as the end of a sentence about it; None: nothing."""
        if value is None and (self.optional or not self.domains):
            return None
        if self.functions and callable(value):
            return None
        if any(value is choice for choice in self.choices if not isinstance(choice, str)):
            return None
        if isinstance(value, str) and value in self.choices:
            return None
        by_choice = bool(self.choices) and (isinstance(value, str) or not self.domains)
        domains = (Choice(self.choices),) if by_choice else self.domains
        problems = (domain.problem(value) for domain in domains)
        found = next((problem for problem in problems if problem), None)
        if found is None and value is None and domains:
            return "is no value here; leave the argument out for its default"
        return found


def argument_of(name: str, annotation: Any) -> Argument:
    """Reads one annotation.

    Args:
      name: of the argument.
      annotation: one of the types of `hyperparameters`, `bool`, `int`, a `Literal`, what Optax
        annotates learning rates with, any of these or None; of anything else nothing is known.
    """
    try:
        return replace(_read(annotation), name=name)
    except TypeError:  # it cannot be hashed
        return replace(_read.__wrapped__(annotation), name=name)


@cache  # hundreds of factories have the same few
def _read(annotation: Any) -> Argument:
    """What an annotation says of an argument, whatever its name."""
    name = ""
    domains: list[Domain] = []
    others: list[Domain] = []
    choices: list[object] = []
    optional = functions = is_handed_in = False
    members = list(_members(annotation))
    for member in members:
        if member is type(None):
            optional = True
        elif get_origin(member) is Annotated:
            domains += [m for m in member.__metadata__ if isinstance(m, Domain)]
            inside = get_args(member.__origin__)
            optional |= type(None) in inside
            functions |= any(get_origin(part) is collections.abc.Callable for part in inside)
        elif get_origin(member) is Literal:
            choices += get_args(member)
        elif get_origin(member) is collections.abc.Callable:
            functions = is_handed_in = True
        elif member is bool:
            domains.append(Switch())
        elif member is float or (member is int and float not in members):
            domains.append(Interval(-float("inf"), float("inf"), integer=member is int))
        elif member is int:  # of `int | float` the latter says all
            continue
        elif kind := _kind(member):
            others.append(kind)
        elif member is not Any:
            return Argument(name)
    if others and Any not in members:
        alternatives = [tuple(domains)] * bool(domains) + [(kind,) for kind in others]
        domains = [AnyOf(tuple(alternatives))] if len(alternatives) > 1 else others
    if is_handed_in and not domains and Any not in members:
        domains.append(Functions())
    return Argument(name, tuple(domains), tuple(choices), optional, functions, _is_rate(annotation))


def _kind(member: Any) -> Domain | None:
    """What a class, or a container of what is known, asks of a value; None: nothing is known."""
    inside = [argument_of("", part) for part in get_args(member) if part is not Ellipsis]
    match get_origin(member) or member:
        case builtins.str:
            return Words()
        case optax.GradientTransformation:
            return Transformations()
        case jax.Array | np.ndarray:
            return Arrays()
        case _ if member == optax.Params:
            return Trees()
        case _ if member == ArrayLike:
            return Numerical()
        case _ if member == Listed:
            return Numerical(listed=True)
        case _ if member == DTypeLike:
            return DTypes(inexact=False)
        case builtins.tuple if len(inside) == len(get_args(member)):
            return Places(tuple(inside))
        case builtins.tuple | collections.abc.Sequence:
            return Sequences((inside or [Argument("")])[0])
        case collections.abc.Iterable:
            return Sequences((inside or [Argument("")])[0], ordered=False)
        case collections.abc.Mapping:
            return Mappings((inside or [Argument("")])[-1])
    if getattr(member, "_is_protocol", False):
        own = vars(member).items()
        methods = [n for n, x in own if callable(x) and (n[0] != "_" or n == "__call__")]
        return Having(tuple(methods)) if methods else None
    return Instances(member) if _is_of_instances(member) else None


def _is_of_instances(member: Any) -> bool:
    """Whether it is a class to which values belong, and no form that they have or have not."""
    is_form = getattr(member, "_is_protocol", False) or member in (object, inspect.Parameter.empty)
    return inspect.isclass(member) and not is_form and member.__module__ != "collections.abc"


RATE = set(get_args(optax.ScalarOrSchedule))
LIKE = (optax.Params, Listed, ArrayLike, DTypeLike)
"""Unions of which no member says what the whole does."""


def _is_rate(annotation: Any) -> bool:
    return _is_union(annotation) and set(get_args(annotation)) >= RATE


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union; what stands for a learning rate, an array or a dtype is one."""
    members = list(get_args(annotation)) if _is_union(annotation) else [annotation]
    if _is_rate(annotation):
        yield NonNegative
        members = [member for member in members if member not in RATE]
    for like in LIKE:
        if all(kind in members for kind in get_args(like)):
            yield like
            members = [member for member in members if member not in get_args(like)]
    yield from members


@cache
def arguments_of(factory: Callable[..., Any]) -> Mapping[str, Argument]:
    """What each argument of a factory may be."""
    parameters = inspect.signature(factory).parameters
    return {name: _of_parameter(p) for name, p in parameters.items()}


def _of_parameter(parameter: inspect.Parameter) -> Argument:
    """Of `*args` and `**kwargs` the annotation says what each may be."""
    each = argument_of(parameter.name, parameter.annotation)
    if not each.domains and not each.choices:
        return each
    if parameter.kind is parameter.VAR_POSITIONAL:
        return Argument(parameter.name, (Sequences(each),))
    if parameter.kind is parameter.VAR_KEYWORD:
        return Argument(parameter.name, (Mappings(each),))
    return each


def shown(signature: inspect.Signature, function: Callable[..., Any] | None = None) -> str:
    """A signature as documentation and messages print it.

    Args:
      signature: what a function can be called with.
      function: it, whose source tells how its annotations were written.
    """
    written = {} if function is None else _written(inspect.unwrap(function))
    parts, has_star = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not has_star:
            parts.append("*")
        has_star |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        parts.append(_shown(parameter, written))
    return f"({', '.join(parts)})"


@cache
def _written(function: Callable[..., Any]) -> Mapping[str, str]:
    """The annotations of a function's arguments by name, as its source has them."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # a lambda in the middle of a line, or no source
        return {}
    definition = tree.body[0]
    if isinstance(definition, ast.ClassDef):
        inits = (node for node in definition.body if getattr(node, "name", "") == "__init__")
        definition = next(inits, definition)
    if not isinstance(definition, ast.FunctionDef):
        return {}
    every = [node for node in ast.walk(definition.args) if isinstance(node, ast.arg)]
    return {arg.arg: _without_module(arg.annotation) for arg in every if arg.annotation}


def _without_module(annotation: ast.expr) -> str:
    name = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    return str(name).replace("optax.ScalarOrSchedule", "ScalarOrSchedule")


def _shown(parameter: inspect.Parameter, written: Mapping[str, str]) -> str:
    stars = 1 * (parameter.kind is parameter.VAR_POSITIONAL)
    stars += 2 * (parameter.kind is parameter.VAR_KEYWORD)
    name, default = "*" * stars + parameter.name, parameter.default
    annotation = _spelled(parameter.annotation, written.get(parameter.name, ""))
    if default is parameter.empty:
        return f"{name}: {annotation}" if annotation else name
    value = getattr(default, "__name__", "a function") if callable(default) else repr(default)
    return f"{name}: {annotation} = {value}" if annotation else f"{name}={value}"


def _spelled(annotation: Any, written: str) -> str:
    """Types of ours by their names, choices in full, everything else as it was written."""
    for name, alias in ALIASES.items():
        if annotation == alias:
            return name
    if Trees() in getattr(annotation, "__metadata__", ()):
        return "Tree"
    if annotation is inspect.Parameter.empty or (written and get_origin(annotation) is not Literal):
        return written
    return inspect.formatannotation(annotation).removeprefix("typing.")
