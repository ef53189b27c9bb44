"""The examples in the docstrings run and print what they say."""

import doctest
import importlib
import pkgutil
import warnings

import gradchain
import gradchain.layers
import pytest

FOLDERS = (gradchain.layers, gradchain.optimizers, gradchain.schedules, gradchain.transforms)


def modules():
    yield from ("gradchain.catalogue", "gradchain.compiling", "gradchain.layers")
    yield from ("gradchain.sweeping", "gradchain.training")
    for folder in FOLDERS:
        found = pkgutil.walk_packages(folder.__path__, folder.__name__ + ".")
        yield from (entry.name for entry in found)


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
