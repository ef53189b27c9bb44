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


def test_what_is_heavy_and_seldom_needed_is_not_imported():
    """Beside JAX and Optax, whose imports are theirs."""
    code = (
        "import sys, jax, optax\n"
        "before = set(sys.modules)\n"
        "import gradchain\n"
        "print(*set(sys.modules) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"flax", "matplotlib", "optax.contrib", "orbax", "pandas", "scipy"}
    found = {name for name in done.stdout.split() if name.partition(".")[0] in heavy}
    assert not found & {"scipy.interpolate", "scipy.optimize", "scipy.sparse"}
    assert not {name.partition(".")[0] for name in found} - {"scipy"}


def test_no_step_imports_what_changes_how_jax_traces():
    """JAX 0.12 compiled the first step twice: `jax.extend` came in while it was traced."""
    code = (
        "import sys, gradchain, jax, jax.numpy as jnp\n"
        "opt, params = gradchain.optimizers.mezo(1e-3), jnp.ones(2)\n"
        "before = set(sys.modules)\n"
        "step = jax.jit(lambda p, s: opt.update(p, s, p, value_fn=jnp.sum))\n"
        "state = step(params, opt.init(params))[1]\n"
        "step(params, state)\n"
        "late = {name for name in set(sys.modules) - before if name.startswith('jax.extend')}\n"
        "assert not late, late\n"
        "assert step._cache_size() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
