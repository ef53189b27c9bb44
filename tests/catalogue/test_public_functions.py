"""What holds of every public function, methods or not."""

import contextlib
import inspect
from unittest import mock

import gradchain
import numpy as np
import pytest
from gradchain import federated, flow, layers, optimizers, schedules, training, transforms
from gradchain.optimizers import sgd
from gradchain.transforms import FlowError, clip, maximum, notation
from gradchain.transforms.notation.arguments import arguments_of
from gradchain.transforms.notation.context import Context
from gradchain.transforms.notation.domains import Instances

MODULES = (
    gradchain, federated, layers, optimizers, schedules, training, notation, transforms,
    *(module for _, module in inspect.getmembers(transforms, inspect.ismodule)),
)  # fmt: skip
FITTING = (3, 0.5, "w", ("w",), (2, 3), [0.5], np.ones(3), {}, abs, sgd(0.1), np.float32, None)
"""Of which one is taken by most arguments."""
ODD = (object(), "odd", None)
ANYTHING = {
    ("is_neutral", "value"): "whatever is no number is not neutral",
    ("is_neutral", "neutral"): "likewise",
    ("array_closure", "fn"): "refused by the names that the caller gives it",
    ("scalar_closure", "value_fn"): "likewise",
    ("check_projection", "projection"): "likewise",
}
"""Arguments that are not refused by name, and why."""
PARTS = {
    "Basis", "Coordinates", "Spectrum", "Switch", "Tucker",
    "BlockSteps", "Cell", "Directions", "Interval", "OnManifolds", "Round", "Signal", "StagedLoss",
}  # fmt: skip
"""Classes that the library's own functions make: trees of JAX's, and what is computed with."""


def public(kind):
    found = {}
    for module in MODULES:
        for name, member in inspect.getmembers(module, kind):
            of_arrays = hasattr(member, "receive")
            if name in getattr(module, "__all__", ()) and not of_arrays:
                found[member] = None
    return list(found)


def constructors():
    """Of classes but errors, protocols, named tuples and parts."""
    for cls in public(inspect.isclass):
        is_form = issubclass(cls, Exception | tuple) or getattr(cls, "_is_protocol", False)
        if not (is_form or cls.__name__ in PARTS):
            yield cls


def one_of_its_kind(argument, signal):
    kinds = [domain.kind for domain in argument.domains if isinstance(domain, Instances)]
    stand_ins = [mock.Mock(spec=kind) for kind in kinds]
    several = (signal, (signal, signal), *stand_ins, *FITTING)
    return next(x for x in several if not argument.problem(x))


def odd_values(parameter, argument):
    """What the argument is no place for."""
    is_known = argument.domains or argument.choices
    for odd in ODD:
        may_be = is_known and not argument.problem(odd) and isinstance(odd, str | None)
        if not may_be and parameter.default is not odd:
            yield odd


def accepted_or_unnamed(function, signal):
    """The arguments for which it takes what is of no kind, or refuses it without their names."""
    parameters = inspect.signature(function).parameters.values()
    single = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    arguments = arguments_of(function)
    needed = [p.name for p in single if p.default is p.empty]
    fitting = {name: one_of_its_kind(arguments[name], signal) for name in needed}
    for p in single:
        if (function.__name__, p.name) in ANYTHING:
            continue
        for odd in odd_values(p, arguments[p.name]):
            try:
                function(**{**fitting, p.name: odd})
            except FlowError as error:
                if f": {p.name}={odd!r}" in str(error):
                    continue
            except Exception:  # of what it was given to, whose message has other names
                pass
            yield f"{function.__name__}: {p.name}={odd!r}"


def operands_of(function):
    """What a function that `lift` made takes by place."""
    parameters = inspect.signature(function).parameters.values()
    by_place = [p for p in parameters if p.kind is not p.KEYWORD_ONLY and p.default is p.empty]
    return [p.name for p in by_place if p.annotation is not Context]


def lifted_accepting_or_unnamed(function, signal):
    """The operands and constants in whose place it takes what is no signal nor value, or so."""
    names = operands_of(function)
    constants = {*inspect.signature(function).parameters} - {*names, "context"}
    for name in constants:
        try:
            function(*[signal] * len(names), **{name: object()})
        except FlowError as error:
            if f": {name}=<object" in str(error):
                continue
        yield f"{function.__name__}: {name}"
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
    every = {f for module in MODULES for _, f in inspect.getmembers(module, inspect.isfunction)}
    lifted = [function for function in every if hasattr(function, "receive")]
    assert len(lifted) > 40
    found = []

    def step(g):
        for function in lifted:
            found.extend(lifted_accepting_or_unnamed(function, g))
        for wrong in (None, "w", object(), [1]):
            with pytest.raises(FlowError, match=r"^\*: b=.* must be a signal"):
                g * wrong
            with pytest.raises(FlowError, match=r"^maximum: b=.* must be a signal"):
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
    """Every argument of every function and class, those beside it of kinds that fit."""
    functions = [*public(inspect.isfunction), *constructors()]
    assert len(functions) > 700
    found = []
    for function in functions:

        def step(g, function=function):  # in which there are signals
            found.extend(accepted_or_unnamed(function, g))
            return g

        with contextlib.suppress(FlowError):  # of a state that an accepted argument left open
            flow(step)
    assert found == []
