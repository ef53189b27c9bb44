"""The examples in the docstrings run, and every public factory has one."""

import doctest
import importlib
import pkgutil

import pytest
from gradchain import schedules

MODULES = [module.name for module in pkgutil.iter_modules(schedules.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    module = importlib.import_module(f"gradchain.schedules.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", schedules.__all__)
def test_public_functions_are_documented(name):
    public = getattr(schedules, name)
    if isinstance(public, type) or not callable(public) or name == "DecayShape":
        return
    for section in ("Args:", "Returns:", "Raises:", "Example:"):
        assert section in public.__doc__
