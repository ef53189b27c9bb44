"""The text example's command line: what it leaves, that it resumes bit-exactly, what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from matplotlib.image import imread

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ["--width", "16", "--layers", "1", "--heads", "2", "--context", "16"]
TINY += ["--batch-size", "4", "--sample-length", "20"]
# A method that needs value_fn, keeps a random key and refreshes every tenth step.
TWO = ["--optimizers", "adam:1e-2", "sophia_h:1e-2"]


COMPILED = []
"""The compilations of this process."""


@jax.monitoring.register_event_duration_secs_listener
def note(event, seconds, **_):
    if event.endswith("backend_compile_duration"):
        COMPILED.append(seconds)


@pytest.fixture
def train_text(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import train_text

    return train_text


def command(*arguments):
    return [sys.executable, str(EXAMPLES / "train_text.py"), *map(str, arguments)]


def results(folder):
    return json.loads((folder / "results.json").read_text())


def checkpoint(folder, step):
    """Arrays of a checkpoint by their path."""
    with ocp.CheckpointManager((folder / "checkpoints").resolve()) as manager:
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
    return {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(leaf)
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(state["state"])
    }


def assert_same_run(left, right, step):
    arrays, others = checkpoint(left, step), checkpoint(right, step)
    assert arrays.keys() == others.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(array, others[path], err_msg=path)
    for label, row in results(left)["optimizers"].items():
        other = results(right)["optimizers"][label]
        for name in ("train", "validation", "sample", "validation_loss"):
            assert row[name] == other[name], (label, name)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of 16 steps without interruption, and what it printed."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    arguments = [*TINY, *TWO, "--steps", 16, "--eval-every", 4, "--checkpoint-every", 8]
    done = subprocess.run(
        command(*arguments, "--out", folder), capture_output=True, text=True, check=True
    )
    return folder, done.stdout


def test_leaves_results(straight):
    folder, printed = straight
    figures = results(folder)
    assert figures["baseline"] == "adam"
    assert list(figures["optimizers"]) == ["adam", "sophia_h"]
    entropy = figures["text"]["unigram_entropy"]
    assert 2.5 < entropy < np.log(figures["text"]["characters"])
    assert f"{entropy:.3f}" in printed
    assert "text continued by" in printed
    for label, row in figures["optimizers"].items():
        assert label in printed
        assert [step for step, _ in row["validation"]] == [0, 4, 8, 12, 16]
        assert len(row["train"]) == 16
        assert row["train"][-1] < row["train"][0]
        assert row["validation_loss"] == row["validation"][-1][1]
        assert len(row["sample"]) == 20
        assert row["time_relative_to_sgd"] > 0
    # Two moments of four bytes each; beside them only counters.
    assert figures["optimizers"]["adam"]["state_bytes_per_parameter"] == pytest.approx(8, abs=0.1)
    assert figures["optimizers"]["adam"]["steps_to_baseline"] <= 16


def test_leaves_a_picture(straight):
    image = imread(straight[0] / "curves.png")
    assert image.shape[0] > 300
    assert image.shape[1] > 600
    assert len(np.unique(image.reshape(-1, image.shape[-1]), axis=0)) > 50


def test_stopped_run_resumes_bit_exactly(straight, train_text, tmp_path, monkeypatch, capsys):
    """Stopped by SIGTERM in the middle of sophia_h's period, between two checkpoints."""
    folder = tmp_path / "run"
    advance = train_text.Run.advance

    def stopped(run):
        if run.step == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(run)

    arguments = [*TINY, *TWO, "--steps", 16, "--eval-every", 4, "--checkpoint-every", 8]
    monkeypatch.setattr(train_text.Run, "advance", stopped)
    assert train_text.main([*map(str, arguments), "--out", str(folder)]) == 128 + signal.SIGTERM
    assert "stopped at step 11" in capsys.readouterr().out
    assert not (folder / "results.json").exists()
    monkeypatch.setattr(train_text.Run, "advance", advance)
    assert train_text.main(["--resume", "--out", str(folder)]) == 0
    assert_same_run(straight[0], folder, 16)


def test_states_with_gaps_and_without_elements_are_restored(train_text, tmp_path):
    from gradchain.optimizers import galore
    from text.checkpoint import Checkpoints

    params = {"w": jnp.ones((4, 3)), "b": jnp.ones(3), "empty": jnp.ones(0), "none": None}
    state = galore(1e-2, rank=2).init(params)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state, {})
        checkpoints.manager.wait_until_finished()
        step, found, _ = checkpoints.restore(state)
    assert step == 3
    assert jax.tree.structure(found) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, found, state)


def test_interrupt_saves_and_says_how_to_resume(tmp_path):
    folder = tmp_path / "run"
    arguments = [*TINY, "--optimizers", "adam", "--steps", 100_000, "--checkpoint-every", 20]
    process = subprocess.Popen(
        command(*arguments, "--out", folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (folder / "checkpoints" / "20").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT, errors
    assert "Traceback" not in errors
    assert f"--resume --out {folder}" in printed
    stopped_at = int(printed.split("stopped at step ")[1].split()[0])
    assert (folder / "checkpoints" / str(stopped_at)).is_dir()


def test_every_input_is_made(train_text, monkeypatch):
    """Whatever a method may ask for arrives, with the meaning its name promises."""
    import optax
    from text.contender import INPUTS, Contender
    from text.data import load
    from text.train import Run, Settings

    # As optax transformations say nothing of their needs, this one says it for itself.
    class Asking(optax.GradientTransformationExtraArgs):
        needs = tuple(INPUTS)

    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra)
        mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), extra["per_example_grads"])
        errors = {
            "value": extra["value"] - extra["value_fn"](params),
            "loss": extra["value"] - extra["outputs_loss_fn"](extra["outputs_fn"](params)),
            "logits": extra["logits_fn"](params) - extra["outputs_fn"](params),
            "grads": optax.global_norm(optax.tree.sub(updates, extra["grad_fn"](params))),
            "examples": optax.global_norm(optax.tree.sub(updates, mean)),
            "previous": optax.global_norm(optax.tree.sub(updates, extra["previous_grads"])),
        }
        state = {name: abs(error).max() for name, error in errors.items()}
        return jax.tree.map(lambda g: -0.1 * g, updates), state

    def init(params):
        names = ("value", "loss", "logits", "grads", "examples", "previous")
        return dict.fromkeys(names, np.float32(0))

    contender = Contender("asking", 0.1, None, lambda step: 0.1, Asking(init, update))
    settings = Settings(width=16, layers=1, heads=2, context=16, batch_size=4, steps=2)
    run = Run(settings, load(), [contender])
    run.compile(lambda name: None)
    run.advance()
    assert set(seen) == set(INPUTS)
    first = jax.device_get(run.states["asking"].opt_state)
    assert max(first.values()) < 1e-5
    run.advance()
    second = jax.device_get(run.states["asking"].opt_state)
    # From the second step on the previous parameters are other ones.
    assert second.pop("previous") > 1e-4
    assert max(second.values()) < 1e-5


def test_validation_text_is_not_in_the_training_text(train_text):
    from text.data import load

    text = load()
    train, validation = text.decode(text.train), text.decode(text.validation)
    windows = [validation[start : start + 60] for start in range(0, len(validation) - 60, 60)]
    assert np.mean([window in train for window in windows]) < 0.02


REFUSED = {
    "optimizer": (["--optimizers", "adm:1e-3"], "did you mean adam"),
    "schedule": (["--schedule", "wds"], "did you mean wsd"),
    "own schedule": (["--optimizers", "adam:1e-3:wds"], "did you mean wsd"),
    "form": (["--optimizers", "adam-4bit"], "not a form of storage: 8bit, bfloat16"),
    "rate": (["--optimizers", "adam:fast"], "'fast'"),
    "empty rate": (["--optimizers", "adam:"], "name[:rate[:schedule]]"),
    "negative rate": (["--optimizers", "adam:-1"], "not a learning rate"),
    "twice": (["--optimizers", "adam", "adam"], "given twice"),
    "steps": (["--steps", "0"], "--steps"),
    "abbreviation": (["--step", "5"], "--step"),
    "heads": (["--width", "30"], "--heads"),
    "second schedule": (["--optimizers", "ranger21:1e-2:wsd"], "schedule of its own"),
    "memory": (["--optimizers", "lazy_newton", "--width", "256"], "GB of state"),
    "workspace": (["--optimizers", "egn", "--width", "256", "--batch-size", "64"], "to compute"),
    "controller": (["--controller", "auto_lr"], "--controller"),
    "few steps": (["--controller", "auto_lrs", "--steps", "239"], "at least 240 steps"),
    "rate of its own": (["--optimizers", "sgd_hd:0.1:auto_lrs"], "cannot set it"),
    "nothing to resume": (["--resume"], "no run to resume"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_and_writes_nothing(case, train_text, tmp_path, capsys):
    arguments, message = REFUSED[case]
    if "--optimizers" not in arguments:
        arguments = ["--optimizers", "adam", *arguments]
    folder = tmp_path / "run"
    try:
        code = train_text.main([*arguments, "--out", str(folder)])
    except SystemExit as stop:
        code = stop.code
    errors = capsys.readouterr().err
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not folder.exists()


def test_refuses_a_method_whose_needs_it_cannot_meet(train_text, tmp_path, capsys, monkeypatch):
    import gradchain

    monkeypatch.setattr(gradchain, "needs", lambda optimizer: ("params", "oracle"))
    monkeypatch.setattr(train_text, "train", lambda *_: pytest.fail("trained all the same"))
    folder = tmp_path / "run"
    assert train_text.main([*TINY, "--optimizers", "adam", "--out", str(folder)]) == 2
    assert "adam needs 'oracle'" in capsys.readouterr().err
    assert not folder.exists()


def test_refuses_a_folder_that_cannot_be_written_to(train_text, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run"
    assert train_text.main([*TINY, "--optimizers", "adam", "--out", str(folder)]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_every_method_starts_by_name_under_a_warm_up_from_zero(train_text):
    from gradchain.catalogue import METHODS
    from text.contender import contenders

    params = {"w": jax.ShapeDtypeStruct((4, 4), np.float32)}
    kinds = {name: method.kind for name, method in METHODS.items()}
    for contender in contenders([n for n in kinds if kinds[n] == "transformation"], "wsd", 600):
        assert contender.schedule or contender.learning_rate is None
        jax.eval_shape(contender.optimizer.init, params)
    for name in kinds:
        if kinds[name] != "transformation":
            with pytest.raises(ValueError, match=kinds[name]):
                contenders([name], "wsd", 600)


def test_refuses_a_used_folder_and_changed_settings(straight, train_text, capsys):
    folder = str(straight[0])
    assert train_text.main(["--optimizers", "adam", "--out", folder]) == 2
    assert "--resume" in capsys.readouterr().err
    assert train_text.main(["--resume", "--seed", "1", "--out", folder]) == 2
    assert "--seed 1 differs" in capsys.readouterr().err


def test_lists_the_catalogue(train_text, capsys):
    assert train_text.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert "sophia_h" in printed
    assert "wsd" in printed


def test_a_controller_sets_the_rate_compiles_nothing_and_resumes(train_text, tmp_path):
    from rich.console import Console
    from text import report
    from text.contender import contenders
    from text.data import load
    from text.display import Display
    from text.train import Run, Settings

    steps, spec = 240, "adam-bfloat16:1e-2"
    settings = Settings((spec,), steps=steps, width=8, layers=1, heads=2, context=8, batch_size=2)
    run = Run(settings, load(), contenders([spec], "auto_lrs", steps))
    run.compile(lambda name: None)
    run.evaluate()
    while run.step < steps:
        if run.step == 100:  # in the middle of a search, after a whole stage
            kept = run.step, jax.tree.map(jnp.copy, run.saved()), json.dumps(run.recorded())
            compiled = len(COMPILED)
        run.advance()
    assert len(COMPILED) == compiled

    (row,) = report.results(run, {})["optimizers"].values()
    decisions = row["decisions"]
    assert row["schedule"] == "auto_lrs"
    assert [made["action"] for made in decisions] == ["save", *["restore"] * 4] * 2
    assert [made["phase"] for made in decisions] == [*["explore"] * 4, "exploit"] * 2
    assert [made["step"] for made in decisions] == [0, 16, 32, 48, 64, 80, 112, 144, 176, 208]
    rates = [made["learning_rate"] for made in decisions]
    for tried, chosen in ((rates[:4], rates[4]), (rates[5:9], rates[9])):
        assert len(set(tried)) == 4
        assert chosen in tried
    with (tmp_path / "shown").open("w") as file:
        console = Console(record=True, width=100, file=file)
        console.print(Display(run, console).decisions())
    assert "208 chooses" in " ".join(console.export_text().split())

    step, saved, recorded = kept
    run.resume(step, saved, json.loads(recorded))
    while run.step < 150:
        run.advance()
    (again,) = report.results(run, {})["optimizers"].values()
    assert again["decisions"] == decisions[:8]
    assert again["train"] == row["train"][:150]
