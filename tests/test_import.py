"""The package is imported exactly once, under one name."""

import subprocess
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


def test_layers_are_imported_without_flax():
    """`gradchain.layers` needs Flax when it is called, not before."""
    code = (
        "import sys; sys.modules['flax'] = None\n"
        "import gradchain, gradchain.layers\n"
        "try:\n"
        "    gradchain.layers.linen_layers(lambda params: 0.0, {})\n"
        "except ImportError as error:\n"
        "    assert 'gradchain[flax]' in str(error)\n"
        "else:\n"
        "    raise AssertionError('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
