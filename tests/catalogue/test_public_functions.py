"""What holds of every public function, methods or not."""

import inspect
from unittest import mock

import gradchain
import numpy as np
import pytest
from gradchain import federated, flow, layers, optimizers, schedules, training, transforms
from gradchain.catalogue import METHODS
from gradchain.optimizers import sgd
from gradchain.transforms import FlowError, clip, maximum, notation
from gradchain.transforms.notation.arguments import arguments_of
from gradchain.transforms.notation.context import Context
from gradchain.transforms.notation.domains import Instances, Interval

WHOLE = (
    gradchain, federated, layers, optimizers, schedules, training,
    transforms.coding, transforms.control, transforms.inspection, notation,
)  # fmt: skip
"""Modules of which every argument is looked at."""
PRIMITIVES = [transforms, *(m for _, m in inspect.getmembers(transforms, inspect.ismodule))]
"""Modules whose functions take arrays and signals, too: those with a number or a choice."""
FACTORIES = {entry.factory for entry in METHODS.values()}
"""Of methods, which have a test of their own."""
VALUES = (3, 0.5, "w", ("w",), (2, 3), [0.5], np.ones(3), {}, abs, sgd(0.1), None)


def public_functions():
    for module in WHOLE:
        yield from functions_of(module)
    for module in PRIMITIVES:
        yield from filter(takes_a_range, functions_of(module))


def functions_of(module):
    for name, function in inspect.getmembers(module, inspect.isfunction):
        own = name in getattr(module, "__all__", ()) or function.__module__ == module.__name__
        of_arrays = hasattr(function, "receive")
        if own and not (name.startswith("_") or of_arrays or function in FACTORIES):
            yield function


def takes_a_range(function):
    """Whether an argument is a number or a choice.

    Not of what `lift` made, whose annotations are those of the function of arrays.
    """
    if not function.__module__.startswith("gradchain.transforms."):
        return False
    return any(
        argument.choices or any(isinstance(domain, Interval) for domain in argument.domains)
        for argument in arguments_of(function).values()
    )


def one_of_its_kind(argument, signal):
    kinds = [domain.kind for domain in argument.domains if isinstance(domain, Instances)]
    stand_ins = [mock.Mock(spec=kind) for kind in kinds]
    return next(x for x in (signal, *stand_ins, *VALUES) if not argument.problem(x))


def accepted_or_unnamed(function, signal):
    """The arguments for which it takes what is of no kind, or refuses it without their names."""
    parameters = inspect.signature(function).parameters.values()
    single = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    arguments = arguments_of(function)
    needed = [p.name for p in single if p.default is p.empty]
    fitting = {name: one_of_its_kind(arguments[name], signal) for name in needed}
    for argument in (arguments[p.name] for p in single):
        if argument.domains or argument.choices:
            try:
                function(**{**fitting, argument.name: object()})
            except Exception as error:
                named = f"{function.__name__}: {argument.name}=<object" in str(error)
                if named and isinstance(error, FlowError):
                    continue
            yield f"{function.__name__}: {argument.name}"


def operands_of(function):
    """What a function that `lift` made takes by place."""
    parameters = inspect.signature(function).parameters.values()
    by_place = [p for p in parameters if p.kind is not p.KEYWORD_ONLY and p.default is p.empty]
    return [p.name for p in by_place if p.annotation is not Context]


def lifted_accepting_or_unnamed(function, signal):
    """The operands in whose place it takes what is neither a signal nor a value, or so."""
    names = operands_of(function)
    for place, name in enumerate(names):
        given = [signal] * len(names)
        given[place] = object()
        try:
            function(*given)
        except FlowError as error:
            if f": {name}=<object" in str(error):
                continue
        yield f"{function.__name__}: {name}"


def test_lifted_functions_refuse_what_is_neither_a_signal_nor_a_value():
    every = {f for module in PRIMITIVES for _, f in inspect.getmembers(module, inspect.isfunction)}
    lifted = [function for function in every if hasattr(function, "receive")]
    assert len(lifted) > 40
    found = []

    def step(g):
        for function in lifted:
            found.extend(lifted_accepting_or_unnamed(function, g))
        for wrong in (None, "w", object(), [1]):
            with pytest.raises(FlowError, match=r"^\*: b=.* must be a signal"):
                g * wrong
            with pytest.raises(FlowError, match=r"^maximum: args=.* must be a signal"):
                maximum(g, wrong)
        for wrong in ("w", object(), [1], 0.5, g, slice(0.5), (0, "w")):
            with pytest.raises(FlowError, match=r"^an index of `updates`: .* must be an integer"):
                g[wrong]
        with pytest.raises(FlowError, match=r"^clip: max=.* is a signal"):
            clip(g, max=g)
        return g

    flow(step)
    assert found == []


def test_what_is_of_no_kind_is_refused_by_the_names_of_function_and_argument():
    """Every argument of which something is known; those beside it are of kinds that fit."""
    functions = set(public_functions())
    assert len(functions) > 100
    found = []

    def step(g):  # in which there are signals
        found.extend(fault for function in functions for fault in accepted_or_unnamed(function, g))
        return g

    flow(step)
    assert found == []
