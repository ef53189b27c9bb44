"""The digits example reaches its accuracy, also with methods that need more than gradients."""

from pathlib import Path

import compilation
import jax
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def digits_linen(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import digits_linen

    return digits_linen


@pytest.mark.parametrize("optimizer", ["adam", "sophia_h"])
def test_recognises_digits(optimizer, digits_linen, tmp_path, capsys, monkeypatch):
    """Compiled as users compile it: convolutions take long in the suite's code."""
    step = jax.jit(
        digits_linen.train_step.__wrapped__,
        static_argnames="needs",
        donate_argnames="state",
        compiler_options=compilation.AS_USERS_RUN,
    )
    monkeypatch.setattr(digits_linen, "train_step", step)
    path = tmp_path / "curves" / "digits.png"
    assert digits_linen.main(["--optimizer", optimizer, "--plot", str(path)]) == 0
    printed = capsys.readouterr().out
    assert float(printed.split("accuracy ")[1].split("%")[0]) > 97
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "adm"], "did you mean adam"),
        (["--optimizer", "adam", "--schedule", "wds"], "did you mean wsd"),
        (["--optimizer", "adam", "--epochs", "0"], "--epochs"),
    ],
)
def test_refuses(arguments, message, digits_linen, capsys):
    assert digits_linen.main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_refuses_a_method_whose_needs_it_cannot_meet(digits_linen, capsys, monkeypatch):
    import gradchain

    monkeypatch.setattr(gradchain, "needs", lambda optimizer: ("params", "layer_inputs"))
    assert digits_linen.main(["--optimizer", "adam"]) == 2
    assert "layer_inputs" in capsys.readouterr().err
