"""What a compiled, donated step holds beside params, gradients and state."""

import importlib.util
from pathlib import Path

import gradchain
import jax
import jax.numpy as jnp
import optax
import pytest
from gradchain.transforms import every, low_rank, scale_by_adam
from gradchain.transforms.subspaces import descending_basis, random_coordinates, svd_basis

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "peak_memory.py"


@pytest.fixture(scope="module")
def peak_memory():
    spec = importlib.util.spec_from_file_location("peak_memory", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_prints_bytes_beside_the_least(peak_memory, capsys):
    peak_memory.main(["adamw", "lion", "schedule_free_sgd"])
    rows = {
        cells[0].strip(" `"): [float(cell) for cell in cells[1:]]
        for cells in (
            line.strip("| ").split("|") for line in capsys.readouterr().out.splitlines()[2:]
        )
    }
    for row in rows.values():
        assert row[1] == row[0] + 8
    # no more than Optax's, and nothing beyond what must be there
    assert rows["adamw"] == rows["optax.adamw"]
    assert rows["adamw"][2:] == [0, 0]
    # by default XLA copies the momentum, whose old values are read by two
    assert rows["lion"][3] < 0.01
    assert rows["schedule_free_sgd"][2:] == [0, 0]


BASES = {
    "svd": lambda: every(4, svd_basis(8)),
    "coordinates": lambda: every(4, random_coordinates(0.02)),
    "descending": lambda: descending_basis(8, optax.sgd(0.1), 0.1),
}


@pytest.mark.parametrize("moments", ["keep", "reset", "transport"])
@pytest.mark.parametrize("basis", BASES)
def test_projected_moments_are_never_of_full_size(peak_memory, basis, moments):
    """Adam in a subspace takes no more than its own small moments beyond what none takes."""
    params = {"w": jax.ShapeDtypeStruct((512, 384), jnp.float32)}
    options = gradchain.compiler_options(update_only=True)
    plain = low_rank(optax.identity(), BASES[basis]())
    adam = low_rank(scale_by_adam(), BASES[basis](), moments=moments)
    least = peak_memory.measured(plain, options, params)
    found = peak_memory.measured(adam, options, params)
    small = found.state - least.state
    assert small < 0.1 * 4 * 512 * 384
    assert found.temporary <= least.temporary + 4 * small


def test_projections_and_stacks_make_no_copies(peak_memory):
    """GaLore works with no more than Optax's; Muon with a stack of gradients and one of updates."""
    square = {f"w{i}": jax.ShapeDtypeStruct((256, 256), jnp.float32) for i in range(8)}
    size, bases = 8 * 256 * 256 * 4, 8 * 256 * 4 * 4
    ours, theirs = (
        peak_memory.measured(opt, {}, square).temporary
        for opt in (gradchain.optimizers.galore(1.0, rank=4), optax.contrib.galore(1.0, rank=4))
    )
    assert ours <= theirs + bases
    assert peak_memory.measured(gradchain.optimizers.muon(1.0), {}, square).temporary < 2.1 * size


def test_numbers_of_a_step_cost_no_copy():
    """Among hundreds of leaves XLA would take minutes to find out that they need none."""
    opt = gradchain.optimizers.schedule_free_adamw(1e-3)
    params = {f"w{i}": jax.ShapeDtypeStruct((64, 64), jnp.float32) for i in range(20)}

    def step(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(
        step, donate_argnums=(0, 1), compiler_options=gradchain.compiler_options(update_only=True)
    )
    program = jitted.lower(params, jax.eval_shape(opt.init, params), params).compile().as_text()
    assert " conditional(" in program
    assert " copy(" not in program


def test_eight_bits_take_a_quarter_of_the_state_and_learn_as_much(monkeypatch):
    """On the Transformer of the text example, smaller."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    from text.contender import contenders
    from text.data import load
    from text.train import Run, Settings

    settings = Settings(
        ("adamw:1e-2", "adamw-8bit:1e-2"), steps=40, context=32, layers=1, batch_size=8
    )
    run = Run(settings, load(), contenders(list(settings.optimizers), "wsd", settings.steps))
    run.compile(lambda name: None)
    while run.step < settings.steps:
        run.advance()
    run.evaluate()
    exact, stored = (run.history.validation[label][-1][1] for label in ("adamw", "adamw-8bit"))
    assert exact < 3.3
    assert abs(stored / exact - 1) < 0.01
    stored_bytes = gradchain.describe(run.contenders[1].optimizer, run.params).state_bytes
    # a byte per entry and four per block of 256; leaves below 4096 entries stay as they are
    quantised = [leaf.size for leaf in jax.tree.leaves(run.params) if leaf.size >= 4096]
    rest = sum(leaf.size for leaf in jax.tree.leaves(run.params)) - sum(quantised)
    wanted = 2 * (sum(n + 4 * -(-n // 256) for n in quantised) + 4 * rest)
    assert abs(stored_bytes - wanted) <= 16
