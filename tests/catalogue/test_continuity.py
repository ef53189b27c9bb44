"""Runs that are cut in the middle of a method's periods go on in another process, to the bit."""

import subprocess
import sys
from pathlib import Path

import compilation
import continuity
import gradchain
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
import pytest
from gradchain import inject_hyperparams
from gradchain.optimizers import adamw, clip_by_global_norm, lion, nadam, sgd
from subjects import NAMES, same

SCRIPT = Path(continuity.__file__)
WITH_PERIODS = [name for name in NAMES if continuity.short_periods(name)]


def goes_on(names, folder):
    expected = continuity.cut(folder, names)
    subprocess.run([sys.executable, str(SCRIPT), str(folder), *names], check=True)
    found = continuity.restore(folder / "end", names)
    assert [name for name in names if not same(found[name], expected[name])] == []


def test_methods_with_periods_go_on_in_another_process(tmp_path):
    goes_on(WITH_PERIODS, tmp_path)


@pytest.mark.by_hand
def test_every_method_goes_on_in_another_process(tmp_path):
    compilation.forget_if_large()
    goes_on(NAMES, tmp_path)


PARAMS = {"w": jnp.ones((3, 2))}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of AdamW after a step."""
    folder = tmp_path_factory.mktemp("adamw") / "state"
    opt = adamw(1e-3)
    _, state = opt.update(PARAMS, opt.init(PARAMS), PARAMS)
    continuity.save(folder, state)
    return folder, state


def restored(folder, opt, params=PARAMS):
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder, jax.eval_shape(opt.init, params))


def test_what_keeps_the_same_by_the_same_names_goes_on(saved):
    """A chain that gained a clip, and another method of the same moments."""
    folder, state = saved
    clip = clip_by_global_norm(1.0)
    for other in (clip, gradchain.chain(clip)):
        assert same(restored(folder, gradchain.chain(other, adamw(1e-3))), state)
    assert same(restored(folder, nadam(1e-3)), state)


@pytest.mark.parametrize(
    ("opt", "params", "says"),
    [
        (lion(1e-3), PARAMS, r"scale_by_lion.*scale_by_adam"),
        (adamw(1e-3), {"v": jnp.ones((3, 2))}, r"'v'.*'w'"),
        (inject_hyperparams(adamw)(1e-3), PARAMS, r"'hyperparams', 'b1'.*\('count',\)"),
        (optax.MultiSteps(adamw(1e-3), 2), PARAMS, r"'mini_step'.*\('count',\)"),
        (gradchain.masked(adamw(1e-3), {"w": True}), PARAMS, r"'adamw'.*\('count',\)"),
    ],
)
def test_a_checkpoint_of_another_method_or_tree_is_refused_by_name(saved, opt, params, says):
    with pytest.raises(ValueError, match=says):
        restored(saved[0], opt, params)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    # A state of one array: Orbax finds the shape while it reads, and abandons the other reads.
    opt = sgd(1e-3, momentum=0.9)
    continuity.save(tmp_path / "state", opt.init(PARAMS))
    with pytest.raises(ValueError, match=r"\(4, 2\).*\(3, 2\)"):
        restored(tmp_path / "state", opt, {"w": jnp.ones((4, 2))})
