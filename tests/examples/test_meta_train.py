"""A few meta-steps by both estimators move the weights; what they give trains other widths."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ["--meta-steps", "6", "--particles", "3", "--inner-steps", "6", "--truncation", "3"]


@pytest.fixture
def meta_train(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("COLUMNS", "200")
    return importlib.import_module("meta_train")


def test_evolution_strategies_and_the_transfer(meta_train, capsys, tmp_path):
    path = tmp_path / "transfer.png"
    arguments = [*SMALL, "--widths", "32", "--tasks", "2", "--plot", str(path)]
    assert meta_train.main(arguments) == 0
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    found = {name.strip(): float(loss) for name, loss in lines}
    assert len(found) == 4
    assert all(1.0 < loss < 2.6 for loss in found.values()), found
    # the hidden layer is twice as wide as in meta-training: the rule halves its steps
    assert found["learned, with the width rule"] != found["learned, without"]
    assert imread(path).shape[1] > 600


@pytest.mark.by_hand
def test_both_estimators_are_of_the_gradient_of_the_losses_on_the_way(meta_train):
    """Of a loss linear in the weights the antithetic estimate of a pair is eps eps^T slope."""
    sigma = 1e-6
    options = meta_train.parser().parse_args([*SMALL, "--sigma", str(sigma)])
    images = np.random.default_rng(0).random((64, 64))
    with jax.enable_x64(True):
        trainer = meta_train.MetaTrainer(options, (jnp.asarray(images), jnp.arange(64) % 10))
        particle, key = trainer.fresh(jax.random.key(3)), jax.random.key(5)
        exact, value, _ = jax.jit(trainer.truncated)(trainer.first, particle, key)
        slope, mean, moved = jax.jit(trainer.persistent)(trainer.first, particle, key)
        assert float(mean) == pytest.approx(float(value), rel=1e-5)
        along = float(moved.moved @ exact) / sigma**2
        np.testing.assert_allclose(slope, moved.moved * along, rtol=1e-2)
