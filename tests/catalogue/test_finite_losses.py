"""Rules that look at the loss rest where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.catalogue import METHODS
from samples import arguments_of, needs_of
from subjects import NAMES, extras_for, gradients, loss_of, same, small_tree

BY_LOSS = [name for name in NAMES if "value" in needs_of(name)]


@pytest.mark.parametrize("name", BY_LOSS)
def test_a_loss_that_is_not_finite_leaves_state_and_params_as_they_were(name):
    # alone, and not in front of an optimizer, whose momentum would go on
    opt, params = METHODS[name].factory(**arguments_of(name)), small_tree()
    extras = {key: x for key, x in extras_for(opt, params).items() if key != "value"}

    @jax.jit
    def update(state, value):
        return opt.update(gradients(params), state, params, value=value, **extras)

    moved, state = update(opt.init(params), loss_of(params))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(moved))
    for value in (jnp.nan, jnp.inf, -jnp.inf):
        updates, after = update(state, value)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
        assert same(after, state)
