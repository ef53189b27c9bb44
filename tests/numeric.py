"""The numbers among the arguments that the tests give a method."""

import inspect
from typing import get_args, get_origin

from gradchain.transforms.notation.arguments import argument_of
from gradchain.transforms.notation.arguments import arguments_of as types_of
from samples import arguments_of, method_named


def given_to(name):
    """The arguments of a method in the tests, defaults included."""
    parameters = inspect.signature(method_named(name).factory).parameters
    return {n: p.default for n, p in parameters.items()} | arguments_of(name)


def numeric(name):
    """The arguments of a method in the tests that are numbers and may be schedules.

    Those that are 0 or None are among them, with another number in place of None, and so are the
    members of tuples.
    """
    factory = method_named(name).factory
    parameters, given = inspect.signature(factory).parameters, given_to(name)
    found = {n: number_of(kind, given[n]) for n, kind in types_of(factory).items()}
    found |= {n: numbers_of(parameters[n].annotation, given[n]) for n in found if found[n] is None}
    return {n: x for n, x in found.items() if x is not None}


def number_of(kind, value):
    """The value of one argument, or one that it may have; None where it takes no schedules."""
    if not kind.takes_schedules or callable(value):
        return None
    if value is not None:
        return float(value)
    return next(x for x in (0.5, 2.0) if not any(domain.problem(x) for domain in kind.domains))


def numbers_of(annotation, value):
    """As `number_of`, for a tuple of numbers."""
    if get_origin(annotation) is not tuple or value is None:
        return None
    kinds = [argument_of("member", member) for member in get_args(annotation)]
    numbers = tuple(map(number_of, kinds, value))
    return None if None in numbers else numbers


def given_numbers(name):
    """Those of `numeric` that are numbers as they stand: with them the method is what it was."""
    given = given_to(name)
    return {n: x for n, x in numeric(name).items() if given[n] is not None}
