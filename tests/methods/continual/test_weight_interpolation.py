"""Weight interpolation."""

from gradchain.optimizers import (
    momentum_weight_interpolation,
    sgd,
)
from trajectories import assert_close, gradients, run, transcribed, tree
from wrapped_rules import both


def test_weight_interpolation():
    def rule(t, g, x, memory):
        memory["x"] = memory.get("x", x) - 0.1 * g
        return 0.8 * x + 0.2 * memory["x"] if t % 3 == 0 else x

    params, grads = tree(), gradients(8)
    opt = momentum_weight_interpolation(sgd(0.1), 0.8, 3)
    seen = run(opt, params, grads, both)
    assert_close([slow for _, slow in seen], transcribed(rule, params, grads))
    assert_close([fast for fast, _ in seen], run(sgd(0.1), params, grads))
