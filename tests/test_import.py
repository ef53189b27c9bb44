"""The package is imported exactly once, under one name."""

import sys
from pathlib import Path

import gradchain


def test_package_is_imported_once():
    root = Path(gradchain.__file__).resolve()
    same_file = [
        name
        for name, module in list(sys.modules.items())
        if getattr(module, "__file__", None) and Path(module.__file__).resolve() == root
    ]
    assert same_file == ["gradchain"]
