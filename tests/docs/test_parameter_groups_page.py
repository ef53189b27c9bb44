"""The page on parameter groups runs from top to bottom."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp

PAGE = Path(__file__).parent.parent.parent / "docs" / "parameter_groups.md"


def test_the_snippets_run():
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    scope = {}
    exec(compile(code, PAGE.name, "exec"), scope)
    assert {"slow", "fast"} <= set(scope["state"]._fields)
    rate = scope["state"].fast.hyperparams["learning_rate"]
    assert float(rate) == float(jnp.float32(5e-4))
    frozen, head = (scope["weights"][key] for key in ("backbone", "head"))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, frozen, scope["params"]["backbone"]))
    assert not jnp.array_equal(head["kernel"], scope["params"]["head"]["kernel"])
