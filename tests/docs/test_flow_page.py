"""The page on the flow notation runs from top to bottom."""

import re
from pathlib import Path

import jax.numpy as jnp
from flows import PARAMS, run

PAGE = Path(__file__).parent.parent.parent / "docs" / "flow.md"


def test_the_snippets_run(capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    scope = {}
    exec(compile(code, "flow.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert "bytes per parameter" in printed
    assert "( update )" in printed
    for name in ("squashed", "careful", "lazy"):
        run(scope[name], steps=2)
    run(scope["running_peak"](0.9), steps=2)
    run(scope["restarted"](2), steps=3)
    matrix = {"b": PARAMS["b"], "a": jnp.ones(3)}
    _, state = run(scope["small_adam"](1), steps=2, params=matrix)
    assert state.scale_by_adam.mu["b"]["c"].shape in ((1, 2), (2, 1))
