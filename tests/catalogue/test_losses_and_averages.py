"""Rules that look at the loss rest where there is none; averages are found in any container."""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import accumulate, eval_params
from gradchain.catalogue import METHODS
from samples import sample
from subjects import NAMES, extras_for, gradients, loss_of, same, small_tree, step_of

BY_LOSS = [name for name in NAMES if "value" in sample(name).needs]
AVERAGED = [name for name in NAMES if "evaluation-weights" in METHODS[name].tags]


@pytest.mark.parametrize("name", BY_LOSS)
def test_a_loss_that_is_not_finite_leaves_state_and_params_as_they_were(name):
    opt = sample(name)
    params, state = step_of(opt)(small_tree(), opt.init(small_tree()))
    extras = {key: x for key, x in extras_for(opt, params).items() if key != "value"}

    @jax.jit
    def update(grads, value):
        return opt.update(grads, state, params, value=value, **extras)

    for value in (jnp.nan, jnp.inf, -jnp.inf):
        updates, after = update(gradients(params), value)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
        assert same(after, state)
    updates, _ = update(gradients(params), loss_of(params))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(updates))


def stacked_up(opt):
    """In a mask, in a group, in micro-batches of either kind, in a chain."""
    everywhere = lambda value: lambda p: jax.tree.map(lambda _: value, p)  # noqa: E731
    masked = gradchain.masked(opt, everywhere(True))
    grouped = gradchain.partition({"all": masked}, everywhere("all"))
    steps = optax.MultiSteps(accumulate(grouped, 1), 1).gradient_transformation()
    return gradchain.chain(optax.identity(), steps)


@pytest.mark.parametrize("name", AVERAGED)
def test_evaluation_weights_are_found_in_any_container(name):
    def run(opt, extras):
        def step(carry, _):
            params, state = carry
            given = extras_for(extras, params)
            updates, state = opt.update(gradients(params), state, params, **given)
            return (optax.apply_updates(params, updates), state), None

        start = small_tree()
        return jax.lax.scan(step, (start, opt.init(start)), None, 3)[0]

    opt = sample(name)
    params, state = jax.jit(lambda: run(opt, opt))()
    expected = eval_params(state, params)
    inside, own = jax.jit(lambda: run(stacked_up(opt), opt))()
    found = eval_params(own, inside)
    for key in params:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-5, atol=1e-6)
    assert any(not np.allclose(expected[key], params[key], rtol=1e-4) for key in params)
