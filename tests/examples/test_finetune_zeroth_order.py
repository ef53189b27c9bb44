"""The fine-tuning example on a handful of steps."""

import json
import sys
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_short_run_leaves_its_files_and_a_log_that_rebuilds_it(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    sys.modules.pop("finetune_zeroth_order", None)
    import finetune_zeroth_order as example

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
