"""The weights to evaluate are found in any container, for every method that has some."""

import gradchain
import jax
import numpy as np
import optax
import pytest
from gradchain import accumulate, eval_params
from gradchain.catalogue import METHODS
from samples import sample
from subjects import NAMES, extras_for, gradients, same, small_tree

AVERAGED = [name for name in NAMES if "evaluation-weights" in METHODS[name].tags]


def stacked_up(opt):
    """In a mask, in a group, in micro-batches of either kind, in a chain."""
    everywhere = lambda value: lambda p: jax.tree.map(lambda _: value, p)  # noqa: E731
    masked = gradchain.masked(opt, everywhere(True))
    grouped = gradchain.partition({"all": masked}, everywhere("all"))
    steps = optax.MultiSteps(accumulate(grouped, 1), 1).gradient_transformation()
    return gradchain.chain(optax.identity(), steps)


@pytest.mark.parametrize("name", AVERAGED)
def test_evaluation_weights_are_found_in_any_container(name):
    opt = sample(name)

    def run(around):
        def step(carry, _):
            params, state = carry
            extras = extras_for(opt, params)
            updates, state = around.update(gradients(params), state, params, **extras)
            return (optax.apply_updates(params, updates), state), None

        start = small_tree()
        return jax.lax.scan(step, (start, around.init(start)), None, 8)[0]

    (params, state), (inside, own) = jax.jit(lambda: (run(opt), run(stacked_up(opt))))()
    expected, found = eval_params(state, params), eval_params(own, inside)
    for key in params:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-5, atol=1e-6)
    assert not same(expected, params)
