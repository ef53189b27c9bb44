"""Every public name of `gradchain.transforms` says what it is, and there are not too many."""

import inspect
import re

import pytest
from gradchain import transforms

NAMESPACES = {name: module for name, module in vars(transforms).items() if inspect.ismodule(module)}
FUNCTIONS = {
    f"{room}.{name}": getattr(module, name)
    for room, module in NAMESPACES.items()
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}
CLASSES = [
    value
    for module in NAMESPACES.values()
    for value in (getattr(module, name) for name in module.__all__)
    if inspect.isclass(value)
]
KIND = re.compile(
    r"^\s*(A transformation to send signals through|Part of the notation|A check of an argument"
    r"|A function of (signals|arrays|transformations?|factories|params|numbers|trees|a \w+)"
    r"|A selector of leaves|A compressor, for)",
    re.MULTILINE,
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_of_which_kind_it_is(name):
    assert KIND.search(FUNCTIONS[name].__doc__ or ""), f"{name} does not say what it works on"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_class_has_a_docstring_of_its_own(cls):
    assert inspect.cleandoc(vars(cls).get("__doc__") or "")
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "that of a dataclass or named tuple"


def test_what_says_it_is_sent_through_gives_something_to_send_through():
    sent = {
        name: function
        for name, function in FUNCTIONS.items()
        if "A transformation to send signals through" in function.__doc__
    }
    assert len(sent) > 40
    for name, function in sent.items():
        gives = str(inspect.signature(function).return_annotation)
        assert re.search("Flow|GradientTransformation|Receiver|Any", gives), name


def test_the_vocabulary_is_a_hundred_words_and_each_has_one_home():
    words = set(transforms.__all__) - set(NAMESPACES)
    functions = {word for word in words if word.islower()}
    assert 80 <= len(functions) <= 100
    assert len(words - functions) <= 30, "types of hyper-parameters, Signal, Flow, FlowError"
    homes = {}
    for module in NAMESPACES.values():
        for name in module.__all__:
            value = getattr(module, name)
            assert homes.setdefault(name, value) is value or not inspect.isfunction(value), name
    assert words <= set(homes)
    assert set(NAMESPACES) <= set(transforms.__all__)
