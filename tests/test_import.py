"""The package is imported exactly once, under one name."""

import subprocess
import sys
import tomllib
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


def test_everything_is_reached_by_completion():
    """`gradchain.` and TAB lead to every part, those included that need Flax."""
    assert {"layers", "training", "transforms", "optimizers", "schedules"} <= set(dir(gradchain))
    assert gradchain.training.TrainState.__module__ == "gradchain.training"
    assert set(gradchain.__all__) <= set(dir(gradchain))
    assert all(hasattr(gradchain, name) for name in gradchain.__all__)


def test_training_says_what_it_needs_without_flax():
    code = (
        "import sys; sys.modules['flax'] = None\n"
        "import gradchain\n"
        "try:\n"
        "    gradchain.training\n"
        "except ImportError as error:\n"
        "    assert 'gradchain[flax]' in str(error)\n"
        "else:\n"
        "    raise AssertionError('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_version_is_that_of_the_package():
    project = tomllib.loads((Path(gradchain.__file__).parent / "pyproject.toml").read_text())
    assert gradchain.__version__ == project["project"]["version"]
