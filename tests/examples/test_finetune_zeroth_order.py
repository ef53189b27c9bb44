"""The fine-tuning example on a handful of steps."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from gradchain.catalogue import METHODS

EXAMPLES = Path(__file__).parents[2] / "examples"


def imported(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    sys.modules.pop("finetune_zeroth_order", None)
    import finetune_zeroth_order as example

    return example


def test_all_methods_of_the_family_run(monkeypatch):
    example = imported(monkeypatch)
    family = {name for name, entry in METHODS.items() if entry.family == "zeroth_order"}
    assert {name.partition(",")[0] for name in example.CONTENDERS} == family


def test_blocks_and_stages_are_the_model(monkeypatch):
    example = imported(monkeypatch)
    model = example.Model(20)
    batch = jnp.arange(3 * 9).reshape(3, 9) % 20
    whole = model.loss(model.params, batch)
    blocks = example.blocks_of(model.params)
    assert jax.tree.structure(example.params_of(blocks)) == jax.tree.structure(model.params)
    x = (batch[:, :-1], batch[:, 1:])
    for function, block in zip(model.blockwise, blocks, strict=True):
        x = function(block, x)
    assert np.allclose(x, whole, rtol=1e-5)
    assert np.allclose(model.staged(batch)(model.params), whole, rtol=1e-5)


def test_a_short_run_leaves_its_files_and_a_log_that_rebuilds_it(tmp_path, monkeypatch, capsys):
    example = imported(monkeypatch)
    out = tmp_path / "run"
    code = example.main(
        ["--methods", "mezo", "--passes", "6", "--pretraining", "2", "--out", str(out)]
    )
    assert code == 0
    assert "the same, to the bit" in capsys.readouterr().out
    assert (out / "mezo.log").stat().st_size == 3 * 8
    assert (out / "curves.png").stat().st_size > 1000
    results = json.loads((out / "results.json").read_text())
    assert results["mezo"]["passes"][-1] == 6
    assert np.all(np.isfinite(results["mezo"]["losses"]))
